//! The names of a query's columns.
//!
//! A column without a name is called by its own text: `count(*)`, `a + 1`. Two columns may have one name, as in PostgreSQL and Trino, which
//! DataFusion refuses: the later ones carry a number behind a mark that no name of a user has, and lose both when the rows leave. In: a query.
//! Out: the query with names, and the schema without marks. Deliberately absent: subqueries in expressions, whose names nobody sees.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::datatypes::{Field, Schema, SchemaRef},
    sql::sqlparser::ast::{
        Expr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins,
    },
};

/// Parts a name from its number; a private character of Unicode that cannot be typed.
const MARK: char = '\u{F8F1}';
/// The longest name that is made of a column's text, as PostgreSQL's names.
const MAX_CHARACTERS: usize = 63;

/// Names the columns of a query, and of the queries in its FROM and WITH.
pub(crate) fn name(query: &mut Query) {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        name(&mut cte.query);
    }
    let named = name_body(&mut query.body);
    if let Some(OrderBy {
        kind: OrderByKind::Expressions(order),
        ..
    }) = &mut query.order_by
    {
        // DataFusion no longer sees that these are columns of the result once those have names.
        for by in order {
            if let Some((_, name)) = named.iter().find(|(expr, _)| *expr == by.expr) {
                by.expr = Expr::Identifier(name.clone());
            }
        }
    }
}

/// The columns as their reader knows them.
pub(crate) fn without_marks(schema: &SchemaRef) -> SchemaRef {
    if !schema.fields().iter().any(|field| field.name().contains(MARK)) {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().map(|field| match field.name().split_once(MARK) {
        Some((name, _)) => Arc::new(Field::clone(field).with_name(name)),
        None => Arc::clone(field),
    });
    Arc::new(Schema::new_with_metadata(
        fields.collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

/// Expressions that were given a name, with it.
type Named = Vec<(Expr, Ident)>;

fn name_body(body: &mut SetExpr) -> Named {
    match body {
        SetExpr::Select(select) => return name_select(select),
        SetExpr::Query(query) => name(query),
        SetExpr::SetOperation { left, right, .. } => {
            name_body(left);
            name_body(right);
        }
        _ => {}
    }
    Named::new()
}

fn name_select(select: &mut Select) -> Named {
    let mut named = Named::new();
    for table in &mut select.from {
        name_tables(table);
    }
    let mut taken: HashMap<String, usize> = HashMap::new();
    for item in &mut select.projection {
        let (own, needs_name) = match item {
            SelectItem::UnnamedExpr(expr) => match column_of(expr) {
                Some(column) => (folded(column), false),
                None => (text(expr), true),
            },
            SelectItem::ExprWithAlias { alias, .. } => (folded(alias), false),
            _ => continue,
        };
        let times = taken.entry(own.clone()).or_default();
        *times += 1;
        let wanted = match *times {
            1 if !needs_name => continue,
            1 => own,
            times => format!("{own}{MARK}{times}"),
        };
        let alias = Ident::with_quote('"', wanted);
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let expr = expr.clone();
                if needs_name && *times == 1 {
                    named.push((expr.clone(), alias.clone()));
                }
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
            SelectItem::ExprWithAlias { alias: old, .. } => *old = alias,
            _ => {}
        }
    }
    named
}

fn name_tables(tables: &mut TableWithJoins) {
    let joined = tables.joins.iter_mut().map(|join| &mut join.relation);
    for table in std::iter::once(&mut tables.relation).chain(joined) {
        match table {
            TableFactor::Derived { subquery, .. } => name(subquery),
            TableFactor::NestedJoin { table_with_joins, .. } => name_tables(table_with_joins),
            _ => {}
        }
    }
}

/// The name of a column, or of one that is cast.
pub(crate) fn own_name(expr: &Expr) -> Option<String> {
    column_of(expr).map(folded)
}

/// The column whose name an expression has: itself, or what it casts.
fn column_of(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => column_of(expr),
        _ => None,
    }
}

fn folded(name: &Ident) -> String {
    match name.quote_style {
        None => name.value.to_lowercase(),
        Some(_) => name.value.clone(),
    }
}

fn text(expr: &Expr) -> String {
    expr.to_string().chars().take(MAX_CHARACTERS).collect()
}

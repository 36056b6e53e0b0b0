//! Tables of one FROM clause that one name could mean.
//!
//! The planner looks a column up by as much of its qualifier as both sides have, and takes the first that it finds: `nation` and `lake.tpch.nation` beside each other
//! would both be the first table. In: a query. Out: an error for tables whose own names cannot be told apart, and for columns whose qualifier means
//! several tables. Tables of one name in different schemas may stand beside each other where they are called by whole names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins,
    Visit, Visitor,
};

use crate::error::{Code, QueryError, Result};

/// A name in its parts, as the planner reads them.
type Parts = Vec<String>;

/// Looks at each FROM clause of a query.
pub(crate) fn check(query: &Query) -> Result<()> {
    match query.visit(&mut Selects) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn ambiguous(what: &str, one: &Parts, other: &Parts) -> QueryError {
    let message = format!("{what} may mean `{}` or `{}`", one.join("."), other.join("."));
    QueryError::new(Code::AmbiguousName, message).with_hint("give one of the tables an alias")
}

fn parts<'a>(names: impl IntoIterator<Item = &'a Ident>) -> Parts {
    let folded = names.into_iter().map(|name| match name.quote_style {
        None => name.value.to_lowercase(),
        Some(_) => name.value.clone(),
    });
    folded.collect()
}

fn parts_of(name: &ObjectName) -> Parts {
    parts(name.0.iter().filter_map(|part| part.as_ident()))
}

struct Selects;

impl Visitor for Selects {
    type Break = QueryError;

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        let mut tables = Vec::new();
        select.from.iter().for_each(|from| named(from, &mut tables));
        let mut pairs = Vec::new();
        for (at, one) in tables.iter().enumerate() {
            let others = tables.iter().skip(at + 1);
            // The planner itself says so of equal names.
            for other in others.filter(|other| one.last() == other.last() && one != *other) {
                if one.ends_with(other) || other.ends_with(one) {
                    return ControlFlow::Break(ambiguous("a name in this FROM clause", one, other));
                }
                pairs.push((one.clone(), other.clone()));
            }
        }
        if pairs.is_empty() {
            return ControlFlow::Continue(());
        }
        let mut columns = Columns {
            pairs: &pairs,
            inner: Vec::new(),
        };
        for item in &select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item {
                columns.qualified_by(&parts_of(name))?;
            }
        }
        select.visit(&mut columns)
    }
}

/// The tables of a FROM clause that have no alias.
fn named(from: &TableWithJoins, tables: &mut Vec<Parts>) {
    let joined = from.joins.iter().map(|join| &join.relation);
    for table in std::iter::once(&from.relation).chain(joined) {
        match table {
            TableFactor::Table { name, alias: None, .. } => tables.push(parts_of(name)),
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
                ..
            } => named(table_with_joins, tables),
            _ => {}
        }
    }
}

/// What tables of a FROM clause are called, by their aliases too.
fn called(from: &TableWithJoins, names: &mut Vec<String>) {
    let joined = from.joins.iter().map(|join| &join.relation);
    for table in std::iter::once(&from.relation).chain(joined) {
        match table {
            TableFactor::NestedJoin { table_with_joins, .. } => called(table_with_joins, names),
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::TableFunction { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. } => names.extend(parts([&alias.name])),
            TableFactor::Table { name, .. } => names.extend(parts_of(name).pop()),
            _ => {}
        }
    }
}

/// Looks at the columns of one SELECT, and of those inside it as far as they do not have tables of the same name.
struct Columns<'a> {
    pairs: &'a [(Parts, Parts)],
    /// What the tables of the SELECTs inside are called; the first is the SELECT itself.
    inner: Vec<Vec<String>>,
}

impl Columns<'_> {
    fn qualified_by(&self, qualifier: &[String]) -> ControlFlow<QueryError> {
        let Some(last) = qualifier.last() else {
            return ControlFlow::Continue(());
        };
        if self.inner.iter().skip(1).flatten().any(|name| name == last) {
            return ControlFlow::Continue(());
        }
        let both = |(one, other): &&(Parts, Parts)| one.ends_with(qualifier) && other.ends_with(qualifier);
        match self.pairs.iter().find(both) {
            Some((one, other)) => {
                let what = format!("`{}`", qualifier.join("."));
                ControlFlow::Break(ambiguous(&what, one, other))
            }
            None => ControlFlow::Continue(()),
        }
    }
}

impl Visitor for Columns<'_> {
    type Break = QueryError;

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        let mut names = Vec::new();
        select.from.iter().for_each(|from| called(from, &mut names));
        self.inner.push(names);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &Select) -> ControlFlow<QueryError> {
        self.inner.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<QueryError> {
        let Expr::CompoundIdentifier(names) = expr else {
            return ControlFlow::Continue(());
        };
        let names = parts(names);
        // What follows the column may be a field of it.
        (1..names.len()).try_for_each(|length| self.qualified_by(names.get(..length).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::{
        parser::{DFParser, Statement as ParsedStatement},
        sqlparser::ast::Statement,
    };

    use super::*;

    fn checked(sql: &str) -> Result<()> {
        let statement = DFParser::parse_sql(sql).unwrap().pop_front().unwrap();
        let ParsedStatement::Statement(statement) = statement else {
            panic!("{sql}")
        };
        let Statement::Query(query) = *statement else {
            panic!("{sql}")
        };
        check(&query)
    }

    #[test]
    fn names_that_mean_one_table_are_fine() {
        for sql in [
            "SELECT a.k, b.k FROM t a JOIN d.s.t b ON a.k = b.k",
            "SELECT t.k, b.k FROM t JOIN d.s.t b ON t.k = b.k",
            "SELECT c.s.t.k, d.s.t.k FROM c.s.t JOIN d.s.t ON c.s.t.k = d.s.t.k WHERE d.s.t.v.field = 1",
            "SELECT s.t.k, r.t.* FROM s.t, r.t",
            "SELECT \"T\".k, t.k FROM d.\"T\", d.t",
            "SELECT c.s.t.k FROM c.s.t, d.s.t WHERE EXISTS (SELECT 1 FROM t WHERE t.k = c.s.t.k)",
            "SELECT c.s.t.k FROM c.s.t, d.s.t WHERE c.s.t.k IN (SELECT t.k FROM other AS t)",
            "SELECT 1 FROM t WHERE t.k IN (SELECT d.s.t.k FROM d.s.t)",
        ] {
            assert!(checked(sql).is_ok(), "{sql}: {:?}", checked(sql));
        }
    }

    #[test]
    fn names_that_may_mean_two_tables_are_not() {
        for sql in [
            "SELECT 1 FROM t JOIN d.s.t ON t.k = d.s.t.k",
            "WITH t AS (SELECT 1 AS k) SELECT d.s.t.k FROM d.s.t, t",
            "SELECT * FROM (s.t CROSS JOIN x), c.s.t",
            "SELECT t.k FROM c.s.t, d.s.t",
            "SELECT s.t.k FROM c.s.t, d.s.t",
            "SELECT t.* FROM c.s.t, d.s.t",
            "SELECT 1 FROM c.s.t JOIN d.s.t ON T.k = 1",
            "SELECT 1 FROM c.s.t, d.s.t WHERE EXISTS (SELECT 1 FROM x WHERE x.k = t.k)",
            "SELECT 1 FROM x WHERE k IN (SELECT t.k FROM c.s.t, d.s.t)",
            "SELECT 1 UNION ALL SELECT t.k FROM c.s.t, d.s.t",
        ] {
            let error = checked(sql).unwrap_err();
            assert_eq!(error.code, Code::AmbiguousName, "{sql}");
        }
    }
}

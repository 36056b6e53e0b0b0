//! The statements that write, out of what sqlparser read.
//!
//! sqlparser reads the clauses of many dialects. What is written here is taken; for the rest each statement is put together again from
//! what was taken, and refused if that is not the whole of it: nothing is quietly ignored.

use datafusion::sql::sqlparser::ast::{
    self, Assignment, AssignmentTarget, ColumnOption, CreateTable, CreateView, Delete, FromTable, Ident, Insert,
    ObjectName, Query, SelectItem, SetExpr, TableFactor, TableObject, TableWithJoins, Update,
};

use super::{Changed, Request, normal, not_supported, parts, read_only};
use crate::error::{Code, QueryError, Result};

/// Refuses a statement of which something was not taken.
fn expect_whole(statement: &dyn std::fmt::Display, taken: &str, name: &str, hint: &str) -> Result<()> {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    match squeezed(&statement.to_string()).eq_ignore_ascii_case(&squeezed(taken)) {
        true => Ok(()),
        false => Err(not_supported(&format!("this form of {name}")).with_hint(hint)),
    }
}

pub(super) fn create_view(view: CreateView) -> Result<Request> {
    if view.materialized {
        return Err(not_supported("CREATE MATERIALIZED VIEW"));
    }
    if view.or_replace && view.if_not_exists {
        let message =
            "CREATE VIEW has both OR REPLACE and IF NOT EXISTS, which ask for different things where the view exists";
        return Err(QueryError::new(Code::SyntaxError, message).with_hint("leave one of them out"));
    }
    let columns: Vec<String> = view.columns.iter().map(ToString::to_string).collect();
    let columns = match columns.as_slice() {
        [] => String::new(),
        names => format!("({})", names.join(", ")),
    };
    let replace = if view.or_replace { "OR REPLACE " } else { "" };
    let exists = match (view.if_not_exists, view.name_before_not_exists) {
        (true, false) => "IF NOT EXISTS ",
        _ => "",
    };
    let taken = format!("CREATE {replace}VIEW {exists}{}{columns} AS {}", view.name, view.query);
    let spaced = format!("CREATE {replace}VIEW {exists}{} {columns} AS {}", view.name, view.query);
    let hint = "use CREATE [OR REPLACE] VIEW name [(columns)] AS query, or CREATE VIEW IF NOT EXISTS name [(columns)] AS query";
    expect_whole(&view, &taken, "CREATE VIEW", hint).or_else(|_| expect_whole(&view, &spaced, "CREATE VIEW", hint))?;
    Ok(Request::CreateView {
        name: parts(&view.name)?,
        columns: view.columns.iter().map(|column| normal(&column.name)).collect(),
        query: read_only(view.query)?,
        or_replace: view.or_replace,
        if_not_exists: view.if_not_exists,
    })
}

const CREATE_TABLE: &str = "use CREATE TABLE [IF NOT EXISTS] name AS query, or CREATE TABLE [IF NOT EXISTS] name (column type [NOT NULL], ...)";

pub(super) fn create_table(table: CreateTable) -> Result<Request> {
    let exists = if table.if_not_exists { "IF NOT EXISTS " } else { "" };
    let name = parts(&table.name)?;
    let if_not_exists = table.if_not_exists;
    if let Some(query) = &table.query {
        let taken = format!("CREATE TABLE {exists}{} AS {query}", table.name);
        expect_whole(&table, &taken, "CREATE TABLE", CREATE_TABLE)?;
        return Ok(Request::CreateTableAs {
            name,
            query: read_only(query.clone())?,
            not_null: Vec::new(),
            if_not_exists,
        });
    }
    let columns: Vec<String> = table.columns.iter().map(ToString::to_string).collect();
    let taken = format!("CREATE TABLE {exists}{} ({})", table.name, columns.join(", "));
    expect_whole(&table, &taken, "CREATE TABLE", CREATE_TABLE)?;
    if table.columns.is_empty() {
        return Err(not_supported("CREATE TABLE without columns").with_hint(CREATE_TABLE));
    }
    let mut not_null = Vec::new();
    let mut columns = Vec::with_capacity(table.columns.len());
    for column in table.columns {
        let column_name = normal(&column.name);
        for option in &column.options {
            match option.option {
                ColumnOption::NotNull => not_null.push(column_name.clone()),
                ColumnOption::Null => {}
                _ => {
                    return Err(
                        not_supported(&format!("the option `{}` of a column", option.option)).with_hint(CREATE_TABLE)
                    );
                }
            }
        }
        columns.push(SelectItem::ExprWithAlias {
            expr: ast::Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(ast::Expr::Value(ast::Value::Null.into())),
                data_type: column.data_type,
                array: false,
                format: None,
            },
            alias: Ident::with_quote('"', column_name),
        });
    }
    Ok(Request::CreateTableAs {
        name,
        query: select(columns, None, Some(ast::Expr::Value(ast::Value::Boolean(false).into())))?,
        not_null,
        if_not_exists,
    })
}

pub(super) fn insert(insert: Insert) -> Result<Request> {
    let hint = "use INSERT INTO name [(columns)] SELECT ... or VALUES ...";
    let TableObject::TableName(name) = &insert.table else {
        return Err(not_supported("INSERT into anything but a table"));
    };
    let Some(query) = &insert.source else {
        return Err(not_supported("INSERT without rows").with_hint(hint));
    };
    let names: Vec<String> = insert.columns.iter().map(ToString::to_string).collect();
    let list = match names.as_slice() {
        [] => String::new(),
        names => format!("({}) ", names.join(", ")),
    };
    expect_whole(&insert, &format!("INSERT INTO {name} {list}{query}"), "INSERT", hint)?;
    let mut columns: Vec<String> = Vec::with_capacity(insert.columns.len());
    for column in &insert.columns {
        let column = parts(column)?.pop().unwrap_or_default();
        expect_once(&columns, &column)?;
        columns.push(column);
    }
    Ok(Request::Insert {
        name: parts(name)?,
        columns,
        query: read_only(query.clone())?,
    })
}

fn expect_once(columns: &[String], column: &String) -> Result<()> {
    match columns.contains(column) {
        false => Ok(()),
        true => Err(QueryError::new(
            Code::InvalidArgument,
            format!("column `{column}` is named twice"),
        )),
    }
}

pub(super) fn delete(delete: Delete) -> Result<Request> {
    let hint = "use DELETE FROM name [WHERE condition]";
    let tables = match &delete.from {
        FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables) => tables,
    };
    let [table] = tables.as_slice() else {
        return Err(not_supported("this form of DELETE").with_hint(hint));
    };
    let condition = (delete.selection.as_ref()).map(|selection| format!(" WHERE {selection}"));
    let taken = format!("DELETE FROM {table}{}", condition.unwrap_or_default());
    expect_whole(&delete, &taken, "DELETE", hint)?;
    Ok(Request::Delete(Box::new(changed(
        table,
        delete.selection.clone(),
        hint,
    )?)))
}

pub(super) fn update(update: Update) -> Result<Request> {
    let hint = "use UPDATE name SET column = value, ... [WHERE condition]";
    let condition = (update.selection.as_ref()).map(|selection| format!(" WHERE {selection}"));
    let set: Vec<String> = update.assignments.iter().map(ToString::to_string).collect();
    let taken = format!(
        "UPDATE {} SET {}{}",
        update.table,
        set.join(", "),
        condition.unwrap_or_default()
    );
    expect_whole(&update, &taken, "UPDATE", hint)?;
    let mut columns: Vec<String> = Vec::with_capacity(update.assignments.len());
    let mut values = Vec::with_capacity(update.assignments.len());
    for Assignment { target, value } in update.assignments {
        let AssignmentTarget::ColumnName(name) = target else {
            return Err(not_supported("SET of several columns at once").with_hint(hint));
        };
        let column = parts(&name)?.pop().unwrap_or_default();
        expect_once(&columns, &column)?;
        columns.push(column);
        values.push(value);
    }
    Ok(Request::Update {
        table: Box::new(changed(&update.table, update.selection, hint)?),
        columns,
        values,
    })
}

fn changed(table: &TableWithJoins, selection: Option<ast::Expr>, hint: &str) -> Result<Changed> {
    let refused = || not_supported("a DELETE or UPDATE of anything but one table").with_hint(hint);
    if !table.joins.is_empty() {
        return Err(refused());
    }
    let TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints,
        version: None,
        with_ordinality: false,
        partitions,
        json_path: None,
        sample: None,
        index_hints,
    } = &table.relation
    else {
        return Err(refused());
    };
    if !with_hints.is_empty() || !partitions.is_empty() || !index_hints.is_empty() {
        return Err(refused());
    }
    let alias = match alias {
        None => last(name)?,
        Some(alias) if alias.columns.is_empty() => alias.name.clone(),
        Some(_) => return Err(refused()),
    };
    Ok(Changed {
        name: parts(name)?,
        alias,
        selection,
    })
}

fn last(name: &ObjectName) -> Result<Ident> {
    let last = parts(name)?.pop().unwrap_or_default();
    Ok(Ident::with_quote('"', last))
}

/// `SELECT items [FROM table] [WHERE condition]`, put together without being written as text and read again.
pub(crate) fn select(
    items: Vec<SelectItem>,
    from: Option<(&str, Ident)>,
    condition: Option<ast::Expr>,
) -> Result<Box<Query>> {
    let unexpected = || QueryError::new(Code::GenericInternalError, "a query was expected");
    let Request::Query(mut query) = super::one_statement("SELECT 1 FROM name AS alias")? else {
        return Err(unexpected());
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(unexpected());
    };
    select.projection = items;
    select.selection = condition;
    match from {
        None => select.from.clear(),
        Some((table, known_as)) => {
            let relation = select.from.first_mut().map(|table| &mut table.relation);
            let Some(TableFactor::Table {
                name,
                alias: Some(alias),
                ..
            }) = relation
            else {
                return Err(unexpected());
            };
            *name = ObjectName::from(vec![Ident::with_quote('"', table)]);
            alias.name = known_as;
        }
    }
    Ok(query)
}

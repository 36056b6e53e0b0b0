//! CALL and REFRESH: the procedures that there are.

use datafusion::sql::sqlparser::{
    ast::{self, Statement},
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};

use super::{RECURSION_LIMIT, Request, not_supported, parse, parser_error, parts};
use crate::{
    dialect::MinervaDialect,
    error::{Code, QueryError, Result},
};

pub(super) fn call(tokens: Vec<TokenWithSpan>) -> Result<Request> {
    let Statement::Call(function) = parse(tokens)? else {
        return Err(not_supported("this CALL"));
    };
    let name = parts(&function.name)?.join(".");
    match name.as_str() {
        "system.runtime.kill_query" => {
            let [query_id, message] = arguments(&function.args, ["query_id", "message"])?;
            let missing = || QueryError::new(Code::InvalidArgument, "argument `query_id` is missing");
            Ok(Request::KillQuery {
                query_id: query_id.ok_or_else(missing)?,
                message,
            })
        }
        "system.refresh" => {
            let [depot, collection] = arguments(&function.args, ["depot", "collection"])?;
            if depot.is_none() && collection.is_some() {
                return Err(QueryError::new(
                    Code::InvalidArgument,
                    "argument `collection` needs the argument `depot`",
                ));
            }
            Ok(Request::Refresh { depot, collection })
        }
        _ => Err(
            QueryError::new(Code::NotSupported, format!("procedure `{name}` does not exist"))
                .with_hint("there are system.runtime.kill_query and system.refresh"),
        ),
    }
}

/// The arguments of a procedure, which are texts, by place or by name.
fn arguments<const N: usize>(given: &ast::FunctionArguments, names: [&str; N]) -> Result<[Option<String>; N]> {
    let mut found: [Option<String>; N] = std::array::from_fn(|_| None);
    let ast::FunctionArguments::List(list) = given else {
        return Ok(found);
    };
    let invalid = |message: String| {
        let hint = format!("use {}", names.join(" and "));
        QueryError::new(Code::InvalidArgument, message).with_hint(hint)
    };
    for (index, argument) in list.args.iter().enumerate() {
        let (key, value) = match argument {
            ast::FunctionArg::Named { name, arg, .. } => (name.value.to_lowercase(), arg),
            ast::FunctionArg::Unnamed(arg) => match names.get(index) {
                Some(name) => ((*name).to_owned(), arg),
                None => return Err(invalid(format!("argument {} is too much", index + 1))),
            },
            ast::FunctionArg::ExprNamed { .. } => return Err(not_supported("this form of argument")),
        };
        let text = match value {
            ast::FunctionArgExpr::Expr(ast::Expr::Value(value)) => value.value.clone().into_string(),
            _ => None,
        };
        let text = text.ok_or_else(|| invalid(format!("argument `{key}` is no string")))?;
        match names.iter().zip(&mut found).find(|(name, _)| **name == key) {
            Some((_, place)) if place.is_none() => *place = Some(text),
            Some(_) => return Err(invalid(format!("argument `{key}` is given twice"))),
            None => return Err(invalid(format!("unknown argument `{key}`"))),
        }
    }
    Ok(found)
}

/// `REFRESH`, `REFRESH depot`, `REFRESH depot.collection`.
pub(super) fn refresh(tokens: Vec<TokenWithSpan>) -> Result<Request> {
    let dialect = MinervaDialect::default();
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .with_tokens_with_locations(tokens);
    parser.next_token();
    let mut names = match parser.peek_token().token {
        Token::EOF | Token::SemiColon => Vec::new(),
        _ => parts(&parser.parse_object_name(false).map_err(parser_error)?)?,
    }
    .into_iter();
    // A statement may end with one.
    let _ = parser.consume_token(&Token::SemiColon);
    parser.expect_token(&Token::EOF).map_err(parser_error)?;
    let request = Request::Refresh {
        depot: names.next(),
        collection: names.next(),
    };
    match names.next() {
        None => Ok(request),
        Some(_) => {
            let message = "expected REFRESH, REFRESH depot or REFRESH depot.collection";
            Err(QueryError::new(Code::SyntaxError, message)
                .with_hint("a query looks at the columns of its tables each time"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Request, one_statement};
    use crate::error::Code;

    fn refreshed(sql: &str) -> (Option<String>, Option<String>) {
        match one_statement(sql).unwrap() {
            Request::Refresh { depot, collection } => (depot, collection),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refreshing_is_called_in_three_ways() {
        let name = |text: &str| Some(text.to_owned());
        for sql in ["CALL system.refresh()", "REFRESH", "refresh ;"] {
            assert_eq!(refreshed(sql), (None, None), "{sql}");
        }
        for sql in [
            "CALL system.refresh('crm')",
            "CALL system.refresh(depot => 'crm')",
            "REFRESH crm",
        ] {
            assert_eq!(refreshed(sql), (name("crm"), None), "{sql}");
        }
        for sql in [
            "CALL system.refresh('crm', 'Sales EU')",
            "CALL system.refresh(collection => 'Sales EU', depot => 'crm');",
            "REFRESH crm.\"Sales EU\"",
        ] {
            assert_eq!(refreshed(sql), (name("crm"), name("Sales EU")), "{sql}");
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (sql, code, said) in [
            (
                "CALL system.refresh(collection => 'x')",
                Code::InvalidArgument,
                "`depot`",
            ),
            (
                "CALL system.refresh('a', 'b', 'c')",
                Code::InvalidArgument,
                "argument 3",
            ),
            ("CALL system.refresh('a', depot => 'b')", Code::InvalidArgument, "twice"),
            ("CALL system.refresh(1)", Code::InvalidArgument, "no string"),
            (
                "CALL system.refresh(table => 'b')",
                Code::InvalidArgument,
                "unknown argument `table`",
            ),
            (
                "CALL system.runtime.kill_query()",
                Code::InvalidArgument,
                "`query_id` is missing",
            ),
            ("CALL system.flush()", Code::NotSupported, "`system.flush`"),
            ("REFRESH a.b.c", Code::SyntaxError, "REFRESH depot.collection"),
            ("REFRESH a b", Code::SyntaxError, ""),
        ] {
            let error = one_statement(sql).map(|request| format!("{request:?}")).unwrap_err();
            assert_eq!(error.code, code, "{sql}");
            assert!(error.message.contains(said), "{sql}: {error}");
        }
    }
}

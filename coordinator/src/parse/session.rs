//! `SET SESSION` and `RESET SESSION`, in Trino's grammar. Every other SET and RESET is refused: nothing else is for a statement to change.

use datafusion::sql::sqlparser::{
    ast::{Expr, UnaryOperator, Value},
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};

use super::{RECURSION_LIMIT, Request, not_supported, parser_error, parts, take_word};
use crate::{
    dialect::MinervaDialect,
    error::{Code, QueryError, Result},
};

pub(super) fn change(verb: &str, tokens: Vec<TokenWithSpan>) -> Result<Request> {
    let dialect = MinervaDialect::default();
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .with_tokens_with_locations(tokens);
    parser.next_token();
    let names_role = |parser: &Parser<'_>| match &parser.peek_token().token {
        Token::Word(word) => word.value.eq_ignore_ascii_case("AUTHORIZATION"),
        _ => false,
    };
    if !take_word(&mut parser, "SESSION") || names_role(&parser) {
        return Err(not_supported(&format!("this {verb}")).with_hint(format!(
            "the one form is {verb} SESSION property; SHOW SESSION lists the properties"
        )));
    }
    let name = parser.parse_object_name(false).map_err(parser_error)?;
    let name = parts(&name)?;
    let request = if verb == "RESET" {
        Request::ResetSession { name }
    } else {
        parser.expect_token(&Token::Eq).map_err(parser_error)?;
        let value = parser.parse_expr().map_err(parser_error)?;
        Request::SetSession {
            value: literal(&name, value)?,
            name,
        }
    };
    // A statement may end with one.
    let _ = parser.consume_token(&Token::SemiColon);
    parser.expect_token(&Token::EOF).map_err(parser_error)?;
    Ok(request)
}

/// The text of a value that is written out.
fn literal(name: &[String], value: Expr) -> Result<String> {
    let refused = || {
        let message = format!("the value of session property `{}` is no literal", name.join("."));
        Err(QueryError::new(Code::InvalidArgument, message).with_hint("write a number, true, false or a quoted text"))
    };
    match value {
        Expr::Value(value) => match value.value {
            Value::Boolean(value) => Ok(value.to_string()),
            Value::Number(text, _) | Value::SingleQuotedString(text) => Ok(text),
            _ => refused(),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => literal(name, *expr).map(|text| format!("-{text}")),
        _ => refused(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_statement;
    use super::*;

    #[test]
    fn properties_are_named_and_literals_are_values() {
        for (sql, name, value) in [
            ("SET SESSION query_max_rows = 10", vec!["query_max_rows"], "10"),
            ("set session Crm.Pushdown = FALSE;", vec!["crm", "pushdown"], "false"),
            (
                "SET SESSION \"My Depot\".pushdown = true",
                vec!["My Depot", "pushdown"],
                "true",
            ),
            (
                "SET SESSION query_max_run_time = '10m'",
                vec!["query_max_run_time"],
                "10m",
            ),
            ("SET SESSION query_max_rows = -1", vec!["query_max_rows"], "-1"),
        ] {
            let Request::SetSession {
                name: found,
                value: set,
            } = one_statement(sql).unwrap()
            else {
                panic!("{sql} sets")
            };
            assert_eq!(
                (found, set.as_str()),
                (name.iter().map(|part| (*part).to_owned()).collect(), value),
                "{sql}"
            );
        }
        assert!(matches!(
            one_statement("RESET SESSION crm.pushdown"),
            Ok(Request::ResetSession { name }) if name == ["crm", "pushdown"]
        ));
    }

    #[test]
    fn other_forms_are_refused() {
        for (sql, code) in [
            ("SET SESSION x = (SELECT 1)", Code::InvalidArgument),
            ("SET SESSION x = a", Code::InvalidArgument),
            ("SET SESSION x = 1 2", Code::SyntaxError),
            ("SET SESSION x = 1; SELECT 1", Code::SyntaxError),
            ("SET SESSION x", Code::SyntaxError),
            ("SET SESSION", Code::SyntaxError),
            ("RESET SESSION x = 1", Code::SyntaxError),
            ("SET TIME ZONE 'UTC'", Code::NotSupported),
            ("SET x = 1", Code::NotSupported),
            ("RESET ALL", Code::NotSupported),
            ("SET SESSION AUTHORIZATION root", Code::NotSupported),
            ("RESET SESSION AUTHORIZATION", Code::NotSupported),
            ("SET LOCAL ROLE root", Code::NotSupported),
        ] {
            assert_eq!(one_statement(sql).unwrap_err().code, code, "{sql}");
        }
    }
}

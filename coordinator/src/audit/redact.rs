//! Statements without their values.
//!
//! In: SQL text. Out: the same with `?` for each literal and without comments. What is not understood is left out as a whole, since nobody can
//! say which of its words are values.

use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use crate::{dialect::MinervaDialect, parse};

/// What stands for a text that is not understood.
pub(crate) const LEFT_OUT: &str = "(a text that is no statement)";

/// The statement without literals and comments.
pub(crate) fn redacted(sql: &str) -> String {
    let parsed = parse::one_statement(sql).is_ok();
    let tokens = Tokenizer::new(&MinervaDialect::default(), sql).tokenize();
    match (parsed, tokens) {
        (true, Ok(tokens)) => tokens.iter().map(without_value).collect::<String>().trim().to_owned(),
        _ => LEFT_OUT.to_owned(),
    }
}

fn without_value(token: &Token) -> String {
    match token {
        Token::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)) => " ".to_owned(),
        Token::Whitespace(_) => token.to_string(),
        // Names are kept; everything that is neither a name nor a sign is a value.
        Token::Word(_) | Token::Placeholder(_) | Token::EOF => token.to_string(),
        sign if is_sign(sign) => sign.to_string(),
        _ => "?".to_owned(),
    }
}

/// Whether a token is punctuation or an operator: no letter and no digit is in it.
fn is_sign(token: &Token) -> bool {
    !token.to_string().chars().any(char::is_alphanumeric) && !is_literal(token)
}

fn is_literal(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedByteStringLiteral(_)
            | Token::TripleDoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::TripleSingleQuotedRawStringLiteral(_)
            | Token::TripleDoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::QuoteDelimitedStringLiteral(_)
            | Token::NationalQuoteDelimitedStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

#[cfg(test)]
mod tests {
    use super::{LEFT_OUT, redacted};

    #[test]
    fn literals_and_comments_go_and_names_stay() {
        for (sql, expected) in [
            (
                "SELECT name, 5 FROM a.b.c WHERE email = 'jane@x.com' AND n IN (1, 2.5e3) -- jane",
                "SELECT name, ? FROM a.b.c WHERE email = ? AND n IN (?, ?)",
            ),
            ("select DATE '2020-01-01' /* secret */ , ''", "select DATE ?   , ?"),
            (
                "SELECT \"a b\", x'aabb' FROM t LIMIT 10",
                "SELECT \"a b\", ? FROM t LIMIT ?",
            ),
            ("INSERT INTO a.b.c VALUES ('x', -3)", "INSERT INTO a.b.c VALUES (?, -?)"),
            (
                "SELECT id FROM t WHERE id = ? AND k = $2",
                "SELECT id FROM t WHERE id = ? AND k = $2",
            ),
            ("SELECT 'it''s', E'\\n', N'x' FROM t", "SELECT ?, ?, ? FROM t"),
            ("SELCT 'x'", LEFT_OUT),
            ("SELECT 'x", LEFT_OUT),
            ("", LEFT_OUT),
        ] {
            assert_eq!(redacted(sql), expected, "{sql}");
        }
    }
}

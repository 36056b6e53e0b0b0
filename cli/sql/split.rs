//! Where one statement ends and the next begins.
//!
//! In: text with statements separated by `;`. Out: the statements without the semicolon and without what is only comment around them, and where
//! each begins. Quotes, comments and dollar quotes are read as the server's dialect reads them. Deliberately absent: syntax errors; what is not
//! closed reaches to the end of the text, and the server says what is wrong with it.

/// One statement of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    pub(super) text: &'a str,
    /// Where it begins in the whole text, from 1.
    pub(super) line: u64,
    /// In characters, from 1.
    pub(super) column: u64,
}

/// Splits a text into its statements; empty ones are left out.
pub(super) fn split(text: &str) -> Vec<Statement<'_>> {
    let mut statements = Vec::new();
    let mut rest = text;
    // From the first piece of the statement that is neither blank nor comment, and how far the last of them reaches.
    let mut current: Option<(&str, usize)> = None;
    while let Some(piece) = piece(rest) {
        let (head, tail) = rest.split_at(piece.length);
        match piece.kind {
            Kind::Blank => {}
            Kind::End => statements.extend(current.take().map(|(from, length)| statement(text, from, length))),
            Kind::Code => {
                let (from, _) = current.unwrap_or((rest, 0));
                current = Some((from, from.len() - rest.len() + head.len()));
            }
        }
        rest = tail;
    }
    statements.extend(current.map(|(from, length)| statement(text, from, length)));
    statements
}

/// Whether the last statement of a text is ended by its `;`, so that nothing more is to come.
pub(super) fn is_finished(text: &str) -> bool {
    let mut rest = text;
    let mut is_open = false;
    while let Some(piece) = piece(rest) {
        match piece.kind {
            Kind::Blank => {}
            Kind::End => is_open = false,
            Kind::Code => is_open = true,
        }
        rest = rest.split_at(piece.length).1;
    }
    !is_open
}

/// The pieces of a text: comments, strings, words, spaces, and single characters.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_at(piece(rest)?.length);
        rest = tail;
        Some(head)
    })
}

fn statement<'a>(text: &'a str, from: &'a str, length: usize) -> Statement<'a> {
    let (before, _) = text.split_at(text.len() - from.len());
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let (lines, line) = before.split_at(line_start);
    Statement {
        text: from.split_at(length).0,
        line: lines.matches('\n').count() as u64 + 1,
        column: line.chars().count() as u64 + 1,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Space or a comment.
    Blank,
    /// A semicolon between statements.
    End,
    /// Anything else.
    Code,
}

struct Piece {
    kind: Kind,
    /// In bytes.
    length: usize,
}

/// The piece that a text begins with: a comment, a quoted string, a word, or one character.
fn piece(text: &str) -> Option<Piece> {
    let first = text.chars().next()?;
    let code = |length| Piece {
        kind: Kind::Code,
        length,
    };
    let blank = |length| Piece {
        kind: Kind::Blank,
        length,
    };
    Some(match first {
        ';' => Piece {
            kind: Kind::End,
            length: 1,
        },
        '\'' | '"' | '`' => code(quoted(text, first)),
        '$' => code(dollar_quoted(text).unwrap_or(1)),
        '-' if text.starts_with("--") => blank(text.find('\n').unwrap_or(text.len())),
        '/' if text.starts_with("/*") => blank(block_comment(text)),
        // An operator to the server, so that `//*` begins no comment.
        '/' if text.starts_with("//") => code(2),
        _ if first.is_whitespace() => blank(first.len_utf8()),
        _ if is_word(first) => code(word(text)),
        _ => code(first.len_utf8()),
    })
}

/// The length of a string up to its closing quote. A doubled quote ends one string and begins the next, which comes to the same.
fn quoted(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1);
    characters
        .find(|(_, character)| *character == quote)
        .map_or(text.len(), |(at, _)| at + quote.len_utf8())
}

/// The length of a word; `e'..'` and `q'[..]'`, where a quote may stand inside, are words too.
fn word(text: &str) -> usize {
    let length = text
        .find(|character| !is_word(character) && character != '$')
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(length);
    if !rest.starts_with('\'') {
        return length;
    }
    let string = match word {
        "e" | "E" => escaped(rest),
        _ if ["q", "nq"].iter().any(|prefix| word.eq_ignore_ascii_case(prefix)) => quote_delimited(rest),
        _ => 0,
    };
    length + string
}

/// The length of a string in which a backslash takes away the meaning of the next character.
fn escaped(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '\'' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `'[..]'`, `'!..!'` and the like: the character after the quote says which one ends the string before a quote.
fn quote_delimited(text: &str) -> usize {
    let close = match text.chars().nth(1) {
        None => return text.len(),
        Some('[') => ']',
        Some('{') => '}',
        Some('<') => '>',
        Some('(') => ')',
        Some(other) => other,
    };
    let end = format!("{close}'");
    let begin = 1 + text.chars().nth(1).map_or(0, char::len_utf8);
    text.split_at(begin)
        .1
        .find(&end)
        .map_or(text.len(), |at| begin + at + end.len())
}

/// The length of `$tag$ .. $tag$`; `None` for a dollar that begins no such string, as in `$1`.
fn dollar_quoted(text: &str) -> Option<usize> {
    let after = text.strip_prefix('$')?;
    let tag = after.find(|character: char| !character.is_alphanumeric() && character != '_')?;
    let (_, body) = after.split_at(tag);
    let body = body.strip_prefix('$')?;
    let (delimiter, _) = text.split_at(text.len() - body.len());
    Some(
        body.find(delimiter)
            .map_or(text.len(), |at| delimiter.len() + at + delimiter.len()),
    )
}

/// The length of a comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut rest = text;
    loop {
        if let Some(tail) = rest.strip_prefix("/*") {
            depth += 1;
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = tail;
            if depth == 0 {
                return text.len() - rest.len();
            }
        } else {
            let mut characters = rest.chars();
            if characters.next().is_none() {
                return text.len();
            }
            rest = characters.as_str();
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{
        dialect::GenericDialect,
        tokenizer::{Token, Tokenizer},
    };

    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        split(text).iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn statements_end_where_a_reader_sees_it() {
        for (text, expected) in [
            ("", &[][..]),
            (" ;; -- nothing\n /* ; */ ;", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"]),
            ("SELECT ';'; SELECT 'it''s;'", &["SELECT ';'", "SELECT 'it''s;'"]),
            ("SELECT \"a;\"\"b\"; x", &["SELECT \"a;\"\"b\"", "x"]),
            ("SELECT `a;b`; x", &["SELECT `a;b`", "x"]),
            ("SELECT 1 -- one; two\n; x", &["SELECT 1", "x"]),
            ("SELECT -- one;\n 1; x", &["SELECT -- one;\n 1", "x"]),
            ("/* a; /* b; */ c; */ SELECT 1; x", &["SELECT 1", "x"]),
            (
                "SELECT $$;$$; SELECT $a$ $$;$b$ $a$; x",
                &["SELECT $$;$$", "SELECT $a$ $$;$b$ $a$", "x"],
            ),
            ("SELECT $1; SELECT a$b$; x$b$", &["SELECT $1", "SELECT a$b$", "x$b$"]),
            (
                "SELECT e'\\';'; SELECT 'a\\'; x",
                &["SELECT e'\\';'", "SELECT 'a\\'", "x"],
            ),
            (
                "SELECT q'[it's;]'; SELECT nq'!;'!'; x",
                &["SELECT q'[it's;]'", "SELECT nq'!;'!'", "x"],
            ),
            ("SELECT 'open; x", &["SELECT 'open; x"]),
            ("SELECT 1 /* open; x", &["SELECT 1"]),
            ("SELECT $a$ open; x", &["SELECT $a$ open; x"]),
            ("SELECT 'é;ü'; SELECT '東;京'", &["SELECT 'é;ü'", "SELECT '東;京'"]),
        ] {
            assert_eq!(texts(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_is_finished_behind_its_last_semicolon() {
        for (text, finished) in [
            ("", true),
            ("-- nothing", true),
            ("SELECT 1", false),
            ("SELECT 1;", true),
            ("SELECT 1; -- so", true),
            ("SELECT 1; SELECT", false),
            ("SELECT ';", false),
            ("SELECT 1 -- ;", false),
            ("SELECT $$;", false),
            ("SELECT 1 /* ; */", false),
        ] {
            assert_eq!(is_finished(text), finished, "{text}");
        }
    }

    #[test]
    fn pieces_make_up_the_text() {
        let text = "SELECT  'a b', \"c\".d1 /* e */ -- f";
        let found: Vec<&str> = pieces(text).collect();
        assert_eq!(found.concat(), text);
        assert!(
            found.contains(&"'a b'") && found.contains(&"d1") && found.contains(&"/* e */"),
            "{found:?}"
        );
    }

    #[test]
    fn a_statement_knows_where_it_begins() {
        let places: Vec<_> = split("SELECT 'a\n';  -- é\n/* ü */ SELECT 2; x")
            .iter()
            .map(|statement| (statement.line, statement.column))
            .collect();
        assert_eq!(places, [(1, 1), (3, 9), (3, 19)]);
    }

    /// For every short sequence of difficult pieces: where the server's tokenizer can read the text, it finds the same statements.
    #[test]
    fn the_server_sees_the_same_statements() {
        const PIECES: &[&str] = &[
            ";", "'", "''", "\"", "`", "$$", "$t$", "$1", "--", "\n", "/*", "*/", "\\", "e'", "q'[", "]'", "a", " ",
            "é", "n'",
        ];
        /// The tokens of each statement; `None` where the text cannot be read.
        fn tokens(text: &str) -> Option<Vec<String>> {
            let tokens = Tokenizer::new(&GenericDialect {}, text)
                .with_unescape(false)
                .tokenize()
                .ok()?;
            let tokens: Vec<Token> = tokens
                .into_iter()
                .filter(|token| !matches!(token, Token::Whitespace(_)))
                .collect();
            let statements = tokens
                .split(|token| *token == Token::SemiColon)
                .filter(|tokens| !tokens.is_empty());
            Some(
                statements
                    .map(|tokens| tokens.iter().map(Token::to_string).collect::<Vec<_>>().join(" "))
                    .collect(),
            )
        }
        let mut compared = 0;
        for first in PIECES {
            for second in PIECES {
                for third in PIECES {
                    for fourth in PIECES {
                        let text = format!("{first}{second};{third}{fourth}");
                        let Some(expected) = tokens(&text) else { continue };
                        let found: Vec<String> = texts(&text).into_iter().filter_map(tokens).flatten().collect();
                        assert_eq!(found, expected, "{text:?}: {:?}", texts(&text));
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > 10_000, "only {compared} texts could be read");
    }
}

//! Which part of a text is what.
//!
//! In: text. Out: how many bytes have which style. Deliberately absent: a grammar; a word is a keyword wherever it stands.

use super::{command, words::is_keyword};
use crate::{line::Style, sql::split::pieces};

/// The styles of a text, in turn.
pub(super) fn styles(text: &str) -> Vec<(usize, Style)> {
    if text.trim_start().starts_with('\\') || command::is_command(text) {
        return vec![(text.len(), Style::Command)];
    }
    let mut after_dot = false;
    pieces(text)
        .map(|piece| {
            // `x.date` names something.
            let style = match style(piece) {
                Style::Keyword if after_dot => Style::Plain,
                style => style,
            };
            after_dot = piece == ".";
            (piece.len(), style)
        })
        .collect()
}

fn style(piece: &str) -> Style {
    match piece.chars().next() {
        Some('\'') => Style::Text,
        Some('"' | '`') => Style::Name,
        Some('$') if piece.len() > 1 => Style::Text,
        Some('-' | '/') if piece.starts_with("--") || piece.starts_with("/*") => Style::Comment,
        Some('0'..='9') => Style::Number,
        // `e'..'` and its like.
        Some(_) if piece.ends_with('\'') => Style::Text,
        Some(_) if is_keyword(piece) => Style::Keyword,
        _ => Style::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_seen_as_what_they_are() {
        let text = "SELECT \"a\", 'it''s', 1.5 FROM t.date -- x\n/* y */ e'z' $$s$$";
        let mut rest = text;
        let mut found = Vec::new();
        for (length, style) in styles(text) {
            let (piece, tail) = rest.split_at(length);
            rest = tail;
            if style != Style::Plain {
                found.push((piece, style));
            }
        }
        assert_eq!(rest, "");
        assert_eq!(
            found,
            [
                ("SELECT", Style::Keyword),
                ("\"a\"", Style::Name),
                ("'it'", Style::Text),
                ("'s'", Style::Text),
                ("1", Style::Number),
                ("5", Style::Number),
                ("FROM", Style::Keyword),
                ("-- x", Style::Comment),
                ("/* y */", Style::Comment),
                ("e'z'", Style::Text),
                ("$$s$$", Style::Text),
            ]
        );
        assert_eq!(styles("\\d t"), [(4, Style::Command)]);
        assert_eq!(styles("'open; SELECT"), [(13, Style::Text)]);
        assert_eq!(styles(""), []);
    }
}

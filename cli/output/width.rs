//! How wide text is on a terminal, and how to keep it from doing anything else there.
//!
//! In: text from anywhere. Out: columns, or text that is safe to print on one line. Deliberately absent: asking the terminal; widths are those
//! of Unicode.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

/// The columns that text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// Appends text with everything escaped that would move a cursor, ring a bell or turn the direction of writing.
pub(super) fn write_printable(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '\u{7F}' => {
                let _ = write!(out, "\\x{:02X}", u32::from(character));
            }
            '\u{80}'..='\u{9F}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "\\u{:04X}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_wide_as_a_terminal_shows_it() {
        for (text, columns) in [
            ("", 0),
            ("abc", 3),
            ("Zürich", 6),
            ("東京", 4),
            ("e\u{301}", 1),
            ("한글", 4),
            ("👍", 2),
            ("ｆ", 2),
        ] {
            assert_eq!(width(text), columns, "{text}");
        }
    }

    #[test]
    fn nothing_printable_commands_a_terminal() {
        let mut out = String::new();
        write_printable("a\tb\nc\r\x1b[31m\x07\u{7f}\u{9b}\u{202e}é\\", &mut out);
        assert_eq!(out, "a\\tb\\nc\\r\\x1B[31m\\x07\\x7F\\u009B\\u202Eé\\");
    }
}

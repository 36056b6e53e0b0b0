//! How wide text is on a terminal, and how to keep it from doing anything else there.
//!
//! In: text from anywhere. Out: columns, or text that is safe to print on one line. Deliberately absent: grapheme clusters; characters are
//! narrow, wide (East Asian, emoji) or of no width (combining), by the blocks they lie in.

use std::fmt::Write;

/// The first and last characters of blocks that take two columns.
const WIDE: &[(char, char)] = &[
    ('\u{1100}', '\u{115F}'),
    ('\u{231A}', '\u{231B}'),
    ('\u{23E9}', '\u{23EC}'),
    ('\u{2E80}', '\u{303E}'),
    ('\u{3041}', '\u{33FF}'),
    ('\u{3400}', '\u{4DBF}'),
    ('\u{4E00}', '\u{A4CF}'),
    ('\u{A960}', '\u{A97F}'),
    ('\u{AC00}', '\u{D7A3}'),
    ('\u{F900}', '\u{FAFF}'),
    ('\u{FE30}', '\u{FE6F}'),
    ('\u{FF00}', '\u{FF60}'),
    ('\u{FFE0}', '\u{FFE6}'),
    ('\u{1F300}', '\u{1F64F}'),
    ('\u{1F680}', '\u{1F6FF}'),
    ('\u{1F900}', '\u{1F9FF}'),
    ('\u{20000}', '\u{3FFFD}'),
];

/// The first and last characters of blocks that take no column.
const COMBINING: &[(char, char)] = &[
    ('\u{0300}', '\u{036F}'),
    ('\u{0483}', '\u{0489}'),
    ('\u{0591}', '\u{05BD}'),
    ('\u{064B}', '\u{065F}'),
    ('\u{1AB0}', '\u{1AFF}'),
    ('\u{1DC0}', '\u{1DFF}'),
    ('\u{200B}', '\u{200D}'),
    ('\u{20D0}', '\u{20FF}'),
    ('\u{FE00}', '\u{FE0F}'),
    ('\u{FE20}', '\u{FE2F}'),
];

/// The columns that text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    let lies_in =
        |blocks: &[(char, char)], character| blocks.iter().any(|(first, last)| (*first..=*last).contains(&character));
    text.chars()
        .map(|character| match character {
            '\0'..'\u{0300}' => 1,
            _ if lies_in(COMBINING, character) => 0,
            _ if lies_in(WIDE, character) => 2,
            _ => 1,
        })
        .sum()
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

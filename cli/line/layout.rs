//! How a text that is being edited lies on a terminal.
//!
//! In: the text with its styles, the prompts, the cursor, the terminal's width. Out: rows to print and where the cursor stands among them.
//! Every row is broken here and none by the terminal, so that both agree. Deliberately absent: printing.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Style;

/// The columns of a tab; pasted texts have them.
const TAB: usize = 4;

/// Rows as they are printed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) rows: Vec<String>,
    /// Row and column, from 0.
    pub(super) cursor: (usize, usize),
}

/// What is laid out.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// Before the first line.
    pub(super) prompt: &'a str,
    pub(super) prompt_style: Style,
    /// Before each further line.
    pub(super) continuation: &'a str,
    pub(super) text: &'a str,
    /// How many bytes of the text have which style, in turn; what is left is plain.
    pub(super) styles: &'a [(usize, Style)],
    /// In bytes.
    pub(super) cursor: usize,
    pub(super) width: usize,
}

impl Page<'_> {
    pub(super) fn layout(&self) -> Layout {
        let mut rows = Rows {
            done: Vec::new(),
            row: String::new(),
            column: 0,
            width: self.width.max(2),
            style: Style::Plain,
        };
        rows.prompt(self.prompt, self.prompt_style);
        let mut cursor = None;
        let mut styles = self.styles.iter();
        let (mut left, mut style) = (0, Style::Plain);
        for (at, character) in self.text.char_indices() {
            while left == 0 {
                (left, style) = styles.next().copied().unwrap_or((usize::MAX, Style::Plain));
            }
            left = left.saturating_sub(character.len_utf8());
            if at == self.cursor {
                cursor = Some(rows.place(shown_width(character)));
            }
            if character == '\n' {
                rows.break_row();
                rows.prompt(self.continuation, self.prompt_style);
            } else {
                rows.put(character, style);
            }
        }
        let cursor = cursor.unwrap_or_else(|| rows.place(1));
        rows.set_style(Style::Plain);
        rows.done.push(rows.row);
        Layout {
            rows: rows.done,
            cursor,
        }
    }
}

struct Rows {
    done: Vec<String>,
    row: String,
    column: usize,
    width: usize,
    style: Style,
}

impl Rows {
    fn prompt(&mut self, prompt: &str, style: Style) {
        // A terminal that is too narrow for prompt and text has the text.
        if prompt.width() * 2 <= self.width {
            prompt.chars().for_each(|character| self.put(character, style));
        }
    }

    fn put(&mut self, character: char, style: Style) {
        let width = shown_width(character);
        self.make_room(width);
        self.set_style(style);
        match character {
            '\t' => self.row.push_str("    "),
            // Whatever it would do to a terminal, it does not.
            _ if character.is_control() => self.row.push(char::REPLACEMENT_CHARACTER),
            _ => self.row.push(character),
        }
        self.column += width;
    }

    /// Where a character of this width goes.
    fn place(&mut self, width: usize) -> (usize, usize) {
        self.make_room(width);
        (self.done.len(), self.column)
    }

    fn make_room(&mut self, width: usize) {
        if self.column + width > self.width {
            self.break_row();
        }
    }

    fn break_row(&mut self) {
        self.set_style(Style::Plain);
        self.done.push(std::mem::take(&mut self.row));
        self.column = 0;
    }

    fn set_style(&mut self, style: Style) {
        if style != self.style {
            self.row.push_str(style.begin());
            self.style = style;
        }
    }
}

fn shown_width(character: char) -> usize {
    match character {
        '\n' => 1,
        '\t' => TAB,
        _ => character.width().unwrap_or(1),
    }
}

/// Words in columns, as many beside each other as fit; what goes beyond `most` is counted.
pub(super) fn columns(words: &[String], width: usize, most: usize) -> Vec<String> {
    let shown = words.get(..most).unwrap_or(words);
    let widest = shown.iter().map(|word| word.width()).max().unwrap_or_default() + 2;
    let across = (width / widest).max(1);
    let down = shown.len().div_ceil(across);
    let mut lines = vec![String::new(); down];
    for (index, word) in shown.iter().enumerate() {
        if let Some(line) = lines.get_mut(index % down.max(1)) {
            let padding = (index / down.max(1) * widest).saturating_sub(line.width());
            line.extend(std::iter::repeat_n(' ', padding));
            line.push_str(word);
        }
    }
    if words.len() > shown.len() {
        lines.push(format!("and {} more", words.len() - shown.len()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str, width: usize) -> Layout {
        Page {
            prompt: "m> ",
            prompt_style: Style::Plain,
            continuation: " > ",
            text: &text.replace('|', ""),
            styles: &[],
            cursor: text.find('|').unwrap(),
            width,
        }
        .layout()
    }

    #[test]
    fn rows_are_broken_where_the_terminal_ends() {
        for (text, width, rows, cursor) in [
            ("|", 80, &["m> "][..], (0, 3)),
            ("abc|", 80, &["m> abc"], (0, 6)),
            ("a|bc\nde", 80, &["m> abc", " > de"], (0, 4)),
            ("abc\n|", 80, &["m> abc", " > "], (1, 3)),
            ("abcdef|", 8, &["m> abcde", "f"], (1, 1)),
            ("abcde|", 8, &["m> abcde", ""], (1, 0)),
            ("abcd|e", 8, &["m> abcde"], (0, 7)),
            ("abcd東|", 8, &["m> abcd", "東"], (1, 2)),
            ("abcd|東", 8, &["m> abcd", "東"], (1, 0)),
            ("e\u{301}|x", 80, &["m> e\u{301}x"], (0, 4)),
            ("a|\tb", 80, &["m> a    b"], (0, 4)),
            ("ab|c", 3, &["abc"], (0, 2)),
            ("a\u{1b}b|", 80, &["m> a\u{fffd}b"], (0, 6)),
            ("abcde|\nf", 8, &["m> abcde", "", " > f"], (1, 0)),
        ] {
            let found = layout(text, width);
            assert_eq!(
                (found.rows, found.cursor),
                (rows.iter().map(|row| (*row).to_owned()).collect(), cursor),
                "{text}"
            );
        }
    }

    #[test]
    fn a_style_ends_with_its_row() {
        let page = Page {
            prompt: "",
            prompt_style: Style::Plain,
            continuation: "",
            text: "SELECT 1",
            styles: &[(6, Style::Keyword), (1, Style::Plain), (1, Style::Number)],
            cursor: 8,
            width: 4,
        };
        let (keyword, number, plain) = (Style::Keyword.begin(), Style::Number.begin(), Style::Plain.begin());
        assert_eq!(
            page.layout().rows,
            [
                format!("{keyword}SELE{plain}"),
                format!("{keyword}CT{plain} {number}1{plain}"),
                String::new()
            ]
        );
    }

    #[test]
    fn words_stand_in_columns() {
        let words = ["a", "bb", "東京", "d", "e"].map(str::to_owned);
        assert_eq!(columns(&words, 13, 10), ["a     d", "bb    e", "東京"]);
        assert_eq!(columns(&words, 3, 2), ["a", "bb", "and 3 more"]);
        assert_eq!(columns(&[], 80, 10), Vec::<String>::new());
    }
}

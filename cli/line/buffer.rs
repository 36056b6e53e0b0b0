//! The text being edited, and where the cursor is in it.
//!
//! In: edits. Out: the text. A character with the marks that combine with it moves as one. Deliberately absent: terminals, history, SQL.

use unicode_width::UnicodeWidthChar;

/// A text of one or more lines with a cursor.
#[derive(Debug, Default, Clone)]
pub(super) struct Buffer {
    text: String,
    /// In bytes; between two characters.
    cursor: usize,
}

impl Buffer {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Takes another text, the cursor behind it.
    pub(super) fn set(&mut self, text: impl Into<String>) {
        self.text = text.into();
        self.cursor = self.text.len();
    }

    fn before(&self) -> &str {
        self.text.split_at(self.cursor).0
    }

    fn after(&self) -> &str {
        self.text.split_at(self.cursor).1
    }

    pub(super) fn insert(&mut self, text: &str) {
        self.text.insert_str(self.cursor, text);
        self.cursor += text.len();
    }

    /// Puts a text in the place of what lies between `from` and the cursor.
    pub(super) fn replace_before(&mut self, from: usize, text: &str) {
        self.cut(from, self.cursor);
        self.insert(text);
    }

    /// Removes a part and answers it; the cursor stays by its character.
    fn cut(&mut self, from: usize, to: usize) -> String {
        let removed: String = self.text.drain(from..to).collect();
        if self.cursor >= to {
            self.cursor -= to - from;
        } else if self.cursor > from {
            self.cursor = from;
        }
        removed
    }

    fn left_of(&self) -> usize {
        let mut characters = self.before().char_indices().rev();
        characters
            .find(|(_, character)| !is_mark(*character))
            .map_or(0, |(at, _)| at)
    }

    fn right_of(&self) -> usize {
        let mut characters = self.after().char_indices().skip(1);
        characters
            .find(|(_, character)| !is_mark(*character))
            .map_or(self.text.len(), |(at, _)| self.cursor + at)
    }

    pub(super) fn left(&mut self) {
        self.cursor = self.left_of();
    }

    pub(super) fn right(&mut self) {
        self.cursor = self.right_of();
    }

    pub(super) fn backspace(&mut self) {
        self.cut(self.left_of(), self.cursor);
    }

    pub(super) fn delete(&mut self) {
        self.cut(self.cursor, self.right_of());
    }

    fn word_left_of(&self) -> usize {
        let before = self.before().trim_end_matches(|character| !is_word(character));
        before.trim_end_matches(is_word).len()
    }

    fn word_right_of(&self) -> usize {
        let after = self.after().trim_start_matches(|character| !is_word(character));
        self.text.len() - after.trim_start_matches(is_word).len()
    }

    pub(super) fn word_left(&mut self) {
        self.cursor = self.word_left_of();
    }

    pub(super) fn word_right(&mut self) {
        self.cursor = self.word_right_of();
    }

    fn line_start(&self) -> usize {
        self.before().rfind('\n').map_or(0, |at| at + 1)
    }

    fn line_end(&self) -> usize {
        self.after().find('\n').map_or(self.text.len(), |at| self.cursor + at)
    }

    pub(super) fn home(&mut self) {
        self.cursor = self.line_start();
    }

    pub(super) fn end(&mut self) {
        self.cursor = self.line_end();
    }

    /// To the end of everything.
    pub(super) fn last(&mut self) {
        self.cursor = self.text.len();
    }

    pub(super) fn kill_to_start(&mut self) -> String {
        self.cut(self.line_start(), self.cursor)
    }

    pub(super) fn kill_to_end(&mut self) -> String {
        let end = self.line_end();
        // At the end of a line the line break goes.
        let end = if end == self.cursor && end < self.text.len() {
            end + 1
        } else {
            end
        };
        self.cut(self.cursor, end)
    }

    pub(super) fn kill_word_left(&mut self) -> String {
        self.cut(self.word_left_of(), self.cursor)
    }

    pub(super) fn kill_word_right(&mut self) -> String {
        self.cut(self.cursor, self.word_right_of())
    }

    /// To the line above, at the same character; false in the first line.
    pub(super) fn up(&mut self) -> bool {
        let start = self.line_start();
        let Some(end_above) = start.checked_sub(1) else {
            return false;
        };
        let column = self.before().split_at(start).1.chars().count();
        self.cursor = end_above;
        let start_above = self.line_start();
        self.go_to_column(start_above, column);
        true
    }

    /// To the line below, at the same character; false in the last line.
    pub(super) fn down(&mut self) -> bool {
        let end = self.line_end();
        if end == self.text.len() {
            return false;
        }
        let column = self.before().split_at(self.line_start()).1.chars().count();
        self.go_to_column(end + 1, column);
        true
    }

    fn go_to_column(&mut self, line_start: usize, column: usize) {
        let line = self.text.split_at(line_start).1;
        let line = line.split('\n').next().unwrap_or_default();
        let at = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        self.cursor = line_start + at;
    }
}

/// Whether a character belongs to the one before it.
fn is_mark(character: char) -> bool {
    character != '\n' && character != '\t' && character.width() == Some(0)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text in which `|` is the cursor.
    fn buffer(text: &str) -> Buffer {
        let cursor = text.find('|').unwrap();
        Buffer {
            text: text.replace('|', ""),
            cursor,
        }
    }

    fn check(before: &str, edit: impl FnOnce(&mut Buffer), after: &str) {
        let mut buffer = buffer(before);
        edit(&mut buffer);
        let mut found = buffer.text.clone();
        found.insert(buffer.cursor, '|');
        assert_eq!(found, after, "from {before}");
    }

    #[test]
    fn edits_do_what_their_names_say() {
        check("ab|c", |buffer| buffer.insert("é"), "abé|c");
        check("|abc", Buffer::backspace, "|abc");
        check("abc|", Buffer::delete, "abc|");
        check("aé|c", Buffer::backspace, "a|c");
        check("a|東c", Buffer::delete, "a|c");
        check("ae\u{301}|c", Buffer::backspace, "a|c");
        check("a|e\u{301}c", Buffer::right, "ae\u{301}|c");
        check("a b_c, d|", Buffer::word_left, "a b_c, |d");
        check("a| b_c, d", Buffer::word_right, "a b_c|, d");
        check("one two  |three", |buffer| drop(buffer.kill_word_left()), "one |three");
        check(
            "one| two  three",
            |buffer| drop(buffer.kill_word_right()),
            "one|  three",
        );
        check("a\nb|c\nd", Buffer::home, "a\n|bc\nd");
        check("a\nb|c\nd", Buffer::end, "a\nbc|\nd");
        check("a\nb|c\nd", |buffer| drop(buffer.kill_to_end()), "a\nb|\nd");
        check("a\nb|\nd", |buffer| drop(buffer.kill_to_end()), "a\nb|d");
        check("a\nbc|\nd", |buffer| drop(buffer.kill_to_start()), "a\n|\nd");
        check("SEL|", |buffer| buffer.replace_before(0, "SELECT "), "SELECT |");
    }

    #[test]
    fn lines_are_left_up_and_down() {
        check("abc\nd|", |buffer| assert!(buffer.up()), "a|bc\nd");
        check("a|bc\nd", |buffer| assert!(buffer.down()), "abc\nd|");
        check("ab\n\nabc|", |buffer| assert!(buffer.up()), "ab\n|\nabc");
        check("東京|\nab", |buffer| assert!(buffer.down()), "東京\nab|");
        check("a|bc", |buffer| assert!(!buffer.up()), "a|bc");
        check("abc\nd|", |buffer| assert!(!buffer.down()), "abc\nd|");
    }
}

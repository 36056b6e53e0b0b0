//! What a terminal sends, as keys.
//!
//! In: bytes as they come, in pieces of any length. Out: keys and pasted texts; a sequence that is not whole yet waits for its rest.
//! Deliberately absent: what a key does, and a mouse.

/// What was pressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    /// Alt-Enter: a line break in any case.
    NewLine,
    Tab,
    Backspace,
    /// Ctrl-D, which also leaves an empty line.
    DeleteOrEnd,
    Delete,
    Left,
    Right,
    Up,
    Down,
    WordLeft,
    WordRight,
    Home,
    End,
    KillToStart,
    KillToEnd,
    KillWordLeft,
    KillWordRight,
    Yank,
    Search,
    ClearScreen,
    Interrupt,
    /// Ctrl-G.
    Abort,
    /// What a terminal sends for a text that was pasted, with plain line breaks.
    Paste(String),
    Unknown,
}

const ESCAPE: u8 = 0x1b;
const PASTE_END: &[u8] = b"\x1b[201~";
/// A sequence that has not ended by then is none.
const LONGEST_SEQUENCE: usize = 32;

/// Bytes that are no key yet.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    waiting: Vec<u8>,
}

impl Decoder {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next key that is there as a whole.
    pub(super) fn next(&mut self) -> Option<Key> {
        let (key, length) = decode(&self.waiting)?;
        self.waiting.drain(..length.min(self.waiting.len()));
        Some(key)
    }
}

/// The first key and how many bytes it took.
fn decode(bytes: &[u8]) -> Option<(Key, usize)> {
    match bytes {
        [] => None,
        [ESCAPE, rest @ ..] => escaped(rest).map(|(key, length)| (key, length + 1)),
        [byte @ (..0x20 | 0x7f), ..] => Some((control(*byte), 1)),
        [first, ..] => character(*first, bytes),
    }
}

fn control(byte: u8) -> Key {
    match byte {
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x7f | 0x08 => Key::Backspace,
        0x01 => Key::Home,
        0x02 => Key::Left,
        0x03 => Key::Interrupt,
        0x04 => Key::DeleteOrEnd,
        0x05 => Key::End,
        0x06 => Key::Right,
        0x07 => Key::Abort,
        0x0b => Key::KillToEnd,
        0x0c => Key::ClearScreen,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x12 => Key::Search,
        0x15 => Key::KillToStart,
        0x17 => Key::KillWordLeft,
        0x19 => Key::Yank,
        _ => Key::Unknown,
    }
}

/// A character of UTF-8; a byte that begins none is passed over.
fn character(first: u8, bytes: &[u8]) -> Option<(Key, usize)> {
    let length = match first {
        ..0x80 => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some((Key::Unknown, 1)),
    };
    let bytes = bytes.get(..length)?;
    let read = std::str::from_utf8(bytes).ok().and_then(|text| text.chars().next());
    Some(read.map_or((Key::Unknown, 1), |character| (Key::Char(character), length)))
}

/// What follows an escape.
fn escaped(bytes: &[u8]) -> Option<(Key, usize)> {
    match bytes {
        [] => None,
        [b'[', rest @ ..] => sequence(rest).map(|(key, length)| (key, length + 1)),
        [b'O'] => None,
        [b'O', last, ..] => Some((cursor_key(*last, false), 2)),
        [b'\r' | b'\n', ..] => Some((Key::NewLine, 1)),
        [b'b', ..] => Some((Key::WordLeft, 1)),
        [b'f', ..] => Some((Key::WordRight, 1)),
        [b'd', ..] => Some((Key::KillWordRight, 1)),
        [0x7f | 0x08, ..] => Some((Key::KillWordLeft, 1)),
        // The escape key, and then another sequence.
        [ESCAPE, ..] => Some((Key::Unknown, 0)),
        _ => Some((Key::Unknown, 1)),
    }
}

/// What follows `ESC [`: parameters and a last byte.
fn sequence(bytes: &[u8]) -> Option<(Key, usize)> {
    let Some(at) = bytes.iter().position(|byte| (0x40..=0x7e).contains(byte)) else {
        return (bytes.len() > LONGEST_SEQUENCE).then_some((Key::Unknown, bytes.len()));
    };
    let (parameters, rest) = bytes.split_at(at);
    let last = rest.first().copied()?;
    if (parameters, last) == (b"200", b'~') {
        return pasted(rest.get(1..)?).map(|(key, length)| (key, at + 1 + length));
    }
    let is_modified = parameters.contains(&b';');
    let key = match (parameters, last) {
        (b"1" | b"7", b'~') => Key::Home,
        (b"4" | b"8", b'~') => Key::End,
        (b"3", b'~') => Key::Delete,
        (b"3;3" | b"3;5", b'~') => Key::KillWordRight,
        (_, b'~') => Key::Unknown,
        (_, last) => cursor_key(last, is_modified),
    };
    Some((key, at + 1))
}

fn cursor_key(last: u8, is_modified: bool) -> Key {
    match (last, is_modified) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', true) => Key::WordRight,
        (b'C', false) => Key::Right,
        (b'D', true) => Key::WordLeft,
        (b'D', false) => Key::Left,
        (b'H', _) => Key::Home,
        (b'F', _) => Key::End,
        (b'M', false) => Key::Enter,
        _ => Key::Unknown,
    }
}

/// A pasted text up to the sequence that ends it.
fn pasted(bytes: &[u8]) -> Option<(Key, usize)> {
    let at = bytes.windows(PASTE_END.len()).position(|window| window == PASTE_END)?;
    let (text, _) = bytes.split_at(at);
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n").replace('\r', "\n");
    let text = text
        .chars()
        .filter(|character| !character.is_control() || matches!(character, '\n' | '\t'))
        .collect();
    Some((Key::Paste(text), at + PASTE_END.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        std::iter::from_fn(|| decoder.next()).collect()
    }

    #[test]
    fn keys_are_what_terminals_send_for_them() {
        use Key::*;
        for (bytes, expected) in [
            (
                &b"a\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x91\x8d"[..],
                vec![Char('a'), Char('é'), Char('東'), Char('👍')],
            ),
            (
                b"\r\n\t\x7f\x03\x04",
                vec![Enter, Enter, Tab, Backspace, Interrupt, DeleteOrEnd],
            ),
            (b"\x1b[A\x1bOB\x1b[C\x1b[D", vec![Up, Down, Right, Left]),
            (
                b"\x1b[1;5C\x1b[1;3D\x1bb\x1bf",
                vec![WordRight, WordLeft, WordLeft, WordRight],
            ),
            (b"\x1b[3~\x1b[H\x1b[4~\x1b\r", vec![Delete, Home, End, NewLine]),
            (
                b"\x1b[200~a\rb\r\nc\x07\x1b[201~x",
                vec![Paste("a\nb\nc".to_owned()), Char('x')],
            ),
            (b"\xffx\xc3(", vec![Unknown, Char('x'), Unknown, Char('(')]),
            (b"\x1b[99;1Zx", vec![Unknown, Char('x')]),
            (b"\x1b\x1b[A", vec![Unknown, Up]),
        ] {
            assert_eq!(keys(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_key_may_come_in_pieces() {
        let whole = b"\x1b[1;5C\xe6\x9d\xb1\x1b[200~p\x1b[201~\x1b[A";
        let expected = keys(whole);
        assert_eq!(expected.len(), 4);
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for byte in whole {
            decoder.feed(&[*byte]);
            found.extend(std::iter::from_fn(|| decoder.next()));
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn no_bytes_are_kept_for_ever() {
        let mut decoder = Decoder::default();
        decoder.feed(b"\x1b[");
        decoder.feed(&[b'1'; 40]);
        assert_eq!(decoder.next(), Some(Key::Unknown));
        assert_eq!(decoder.next(), None);
    }
}

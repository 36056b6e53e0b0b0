//! A line editor: reads one text of one or more lines from a terminal, with history, completion and highlighting.
//!
//! In: keys of the terminal, and a [`Helper`] that knows the language. Out: the text that was entered. The libraries for this select other
//! features of crates below DataFusion (`libc`, `mio`, `chrono`), which then is built a second time; this needs raw mode and a size only.
//! Deliberately absent: SQL, files, and a text wider than its terminal that the terminal would break by itself.

mod buffer;
mod keys;
mod layout;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    sync::Arc,
};

use termion::raw::{IntoRawMode, RawTerminal};

use self::{
    buffer::Buffer,
    keys::{Decoder, Key},
    layout::{Page, columns},
};

/// What a part of the text is, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Prompt,
    Command,
    Keyword,
    Text,
    Number,
    Name,
    Comment,
}

impl Style {
    /// What switches a terminal to it.
    fn begin(self) -> &'static str {
        match self {
            Self::Plain => "\x1b[0m",
            Self::Prompt => "\x1b[0;1m",
            Self::Command => "\x1b[0;35m",
            Self::Keyword => "\x1b[0;1;34m",
            Self::Text => "\x1b[0;32m",
            Self::Number => "\x1b[0;36m",
            Self::Name => "\x1b[0;33m",
            Self::Comment => "\x1b[0;2m",
        }
    }
}

/// What may stand at the cursor.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Where what is there already begins, in bytes.
    pub(crate) start: usize,
    /// Texts for what lies between there and the cursor.
    pub(crate) candidates: Vec<String>,
}

/// What an editor has to be told about the language.
pub(crate) trait Helper {
    /// Whether the text can be taken as it is, so that Enter ends it.
    fn is_complete(&self, text: &str) -> bool;
    /// What may stand at the cursor.
    fn complete(&self, text: &str, cursor: usize) -> Completion;
    /// How many bytes have which style, in turn.
    fn styles(&self, text: &str) -> Vec<(usize, Style)>;
    /// How the prompt is shown.
    fn prompt_style(&self) -> Style;
}

/// How reading ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Text(String),
    /// Ctrl-C: what was there is thrown away.
    Interrupted,
    /// Ctrl-D in an empty text, or the terminal is gone.
    End,
}

/// How many candidates are shown at once.
const MOST_CANDIDATES: usize = 120;
const BEGIN_PASTES: &str = "\x1b[?2004h";
const END_PASTES: &str = "\x1b[?2004l";

/// A terminal and what was entered at it before.
pub(crate) struct Editor {
    /// Raw while a text is read.
    terminal: Arc<RawTerminal<File>>,
    decoder: Decoder,
    history: Vec<String>,
    /// What was cut last.
    cut: String,
}

impl Editor {
    /// Opens the terminal that the program was started from.
    pub(crate) fn open(history: Vec<String>) -> io::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let terminal = terminal.into_raw_mode()?;
        terminal.suspend_raw_mode()?;
        Ok(Self {
            terminal: Arc::new(terminal),
            decoder: Decoder::default(),
            history,
            cut: String::new(),
        })
    }

    /// What makes the terminal as it was, for a program that has to end while a text is read.
    pub(crate) fn restorer(&self) -> impl Fn() + Send + 'static {
        let terminal = Arc::clone(&self.terminal);
        move || {
            let mut file: &File = &terminal;
            // The program ends in any case.
            let _ = file.write_all(format!("{END_PASTES}\r\n").as_bytes());
            let _ = terminal.suspend_raw_mode();
        }
    }

    /// Remembers a text, to be found with the arrow keys.
    pub(crate) fn remember(&mut self, text: &str) {
        self.history.push(text.to_owned());
    }

    /// What was remembered last.
    pub(crate) fn newest(&self) -> Option<&str> {
        self.history.last().map(String::as_str)
    }

    /// Reads one text.
    pub(crate) fn read(&mut self, prompt: &str, continuation: &str, helper: &dyn Helper) -> io::Result<Entered> {
        let terminal: &File = &self.terminal;
        self.terminal.activate_raw_mode()?;
        let mut reading = Reading {
            terminal,
            helper,
            prompt,
            continuation,
            buffer: Buffer::default(),
            history: &self.history,
            place: self.history.len(),
            draft: String::new(),
            search: None,
            cut: &mut self.cut,
            painted_row: 0,
        };
        let entered = reading.run(&mut self.decoder);
        let ended = (&*terminal).write_all(END_PASTES.as_bytes());
        self.terminal.suspend_raw_mode()?;
        let entered = entered?;
        ended.map(|()| entered)
    }
}

impl fmt::Debug for Editor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Editor").finish_non_exhaustive()
    }
}

/// The terminal's columns and rows.
pub(crate) fn size(terminal: &File) -> (usize, usize) {
    match termion::terminal_size_fd(terminal) {
        Ok((columns, rows)) if columns > 0 && rows > 0 => (columns.into(), rows.into()),
        _ => (80, 24),
    }
}

/// A search backwards in the history.
#[derive(Debug, Clone, Default)]
struct Search {
    wanted: String,
    /// Where in the history the text was found.
    found: Option<usize>,
}

/// One text while it is read.
struct Reading<'a> {
    terminal: &'a File,
    helper: &'a dyn Helper,
    prompt: &'a str,
    continuation: &'a str,
    buffer: Buffer,
    history: &'a [String],
    /// Which text of the history is shown; its length for the one being written.
    place: usize,
    /// The one being written, while another is shown.
    draft: String,
    search: Option<Search>,
    cut: &'a mut String,
    /// In which of the rows painted last the cursor stands.
    painted_row: usize,
}

impl Reading<'_> {
    fn run(&mut self, decoder: &mut Decoder) -> io::Result<Entered> {
        self.terminal.write_all(BEGIN_PASTES.as_bytes())?;
        let mut bytes = [0; 4096];
        loop {
            while let Some(key) = decoder.next() {
                if let Some(entered) = self.press(key)? {
                    return Ok(entered);
                }
            }
            self.paint()?;
            match self.terminal.read(&mut bytes) {
                Ok(0) => return Ok(Entered::End),
                Ok(length) => decoder.feed(bytes.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What a terminal answers that was closed.
                Err(error) if error.raw_os_error() == Some(5) => return Ok(Entered::End),
                Err(error) => return Err(error),
            }
        }
    }

    fn press(&mut self, key: Key) -> io::Result<Option<Entered>> {
        if self.search.is_some() && self.press_in_search(&key) {
            return Ok(None);
        }
        match key {
            Key::Char(character) => self.buffer.insert(character.encode_utf8(&mut [0; 4])),
            Key::Paste(text) => self.buffer.insert(&text),
            Key::NewLine => self.buffer.insert("\n"),
            Key::Enter if self.helper.is_complete(self.buffer.text()) => {
                self.leave("")?;
                return Ok(Some(Entered::Text(self.buffer.text().to_owned())));
            }
            Key::Enter => self.buffer.insert("\n"),
            Key::Tab => self.complete()?,
            Key::Backspace => self.buffer.backspace(),
            Key::DeleteOrEnd if self.buffer.text().is_empty() => {
                self.leave("")?;
                return Ok(Some(Entered::End));
            }
            Key::Delete | Key::DeleteOrEnd => self.buffer.delete(),
            Key::Left => self.buffer.left(),
            Key::Right => self.buffer.right(),
            Key::Up => {
                if !self.buffer.up() {
                    self.show(self.place.checked_sub(1));
                }
            }
            Key::Down => {
                if !self.buffer.down() {
                    self.show(self.place.checked_add(1));
                }
            }
            Key::WordLeft => self.buffer.word_left(),
            Key::WordRight => self.buffer.word_right(),
            Key::Home => self.buffer.home(),
            Key::End => self.buffer.end(),
            Key::KillToStart => *self.cut = self.buffer.kill_to_start(),
            Key::KillToEnd => *self.cut = self.buffer.kill_to_end(),
            Key::KillWordLeft => *self.cut = self.buffer.kill_word_left(),
            Key::KillWordRight => *self.cut = self.buffer.kill_word_right(),
            Key::Yank => self.buffer.insert(self.cut),
            Key::Search => self.search = Some(Search::default()),
            Key::ClearScreen => {
                self.terminal.write_all(b"\x1b[H\x1b[2J")?;
                self.painted_row = 0;
            }
            Key::Interrupt => {
                self.leave("^C")?;
                return Ok(Some(Entered::Interrupted));
            }
            Key::Abort | Key::Unknown => {}
        }
        Ok(None)
    }

    /// Shows another text of the history, if there is one.
    fn show(&mut self, place: Option<usize>) {
        let Some(place) = place.filter(|place| *place <= self.history.len()) else {
            return;
        };
        if self.place == self.history.len() {
            self.draft = self.buffer.text().to_owned();
        }
        let text = self.history.get(place).unwrap_or(&self.draft).clone();
        self.place = place;
        self.buffer.set(text);
    }

    /// Whether the key was the search's; any other ends it, with what it found in the buffer.
    fn press_in_search(&mut self, key: &Key) -> bool {
        let Some(mut search) = self.search.take() else {
            return false;
        };
        let below = match key {
            Key::Char(character) => {
                search.wanted.push(*character);
                search.found.map_or(self.history.len(), |found| found + 1)
            }
            Key::Backspace => {
                search.wanted.pop();
                self.history.len()
            }
            Key::Search => search.found.unwrap_or(self.history.len()),
            Key::Abort | Key::Interrupt => return true,
            _ => {
                if let Some(text) = search.found.and_then(|found| self.history.get(found)) {
                    self.place = search.found.unwrap_or(self.place);
                    self.buffer.set(text.clone());
                }
                return matches!(key, Key::Unknown);
            }
        };
        let older = self.history.get(..below).unwrap_or_default();
        let found = older.iter().rposition(|text| text.contains(&search.wanted));
        // Where nothing older is found, what was found stays.
        search.found = found.or(search.found.filter(|_| *key == Key::Search));
        if search.wanted.is_empty() {
            search.found = None;
        }
        self.search = Some(search);
        true
    }

    fn complete(&mut self) -> io::Result<()> {
        let completion = self.helper.complete(self.buffer.text(), self.buffer.cursor());
        let Some(common) = common_beginning(&completion.candidates) else {
            return Ok(());
        };
        let there = self
            .buffer
            .text()
            .get(completion.start..self.buffer.cursor())
            .unwrap_or_default();
        match completion.candidates.as_slice() {
            [only] => self.buffer.replace_before(completion.start, only),
            _ if common.len() > there.len() => self.buffer.replace_before(completion.start, &common),
            several => {
                self.paint()?;
                let lines = columns(several, size(self.terminal).0, MOST_CANDIDATES);
                self.leave("")?;
                for line in lines {
                    self.terminal.write_all(format!("{line}\r\n").as_bytes())?;
                }
            }
        }
        Ok(())
    }

    /// Paints everything anew.
    fn paint(&mut self) -> io::Result<()> {
        let (width, height) = size(self.terminal);
        let found = self.search.as_ref().map(|search| {
            let text = search.found.and_then(|found| self.history.get(found));
            (
                format!("(search `{}`) ", search.wanted),
                text.map_or("", String::as_str),
            )
        });
        let (prompt, text, cursor) = match &found {
            Some((prompt, text)) => (prompt.as_str(), *text, text.len()),
            None => (self.prompt, self.buffer.text(), self.buffer.cursor()),
        };
        let layout = Page {
            prompt,
            prompt_style: self.helper.prompt_style(),
            continuation: self.continuation,
            text,
            styles: &self.helper.styles(text),
            cursor,
            width,
        }
        .layout();
        let (row, column) = layout.cursor;
        // Of a text that is longer than the screen, the part around the cursor.
        let skipped = (row + 1).saturating_sub(height);
        let rows = layout.rows.get(skipped..).unwrap_or_default();
        let rows = rows.get(..height).unwrap_or(rows);
        let row = row - skipped;
        let mut out = to_first_row(self.painted_row);
        out.push_str("\x1b[J");
        out.push_str(&rows.join("\r\n"));
        out.push('\r');
        out.push_str(&moved(rows.len().saturating_sub(row + 1), 'A'));
        out.push_str(&moved(column, 'C'));
        self.painted_row = row;
        self.terminal.write_all(out.as_bytes())
    }

    /// Goes to the line below the text, which stays on the screen.
    fn leave(&mut self, mark: &str) -> io::Result<()> {
        let mut all = self.buffer.clone();
        all.last();
        std::mem::swap(&mut self.buffer, &mut all);
        self.paint()?;
        std::mem::swap(&mut self.buffer, &mut all);
        self.painted_row = 0;
        self.terminal.write_all(format!("{mark}\r\n").as_bytes())
    }
}

fn to_first_row(from: usize) -> String {
    format!("\r{}", moved(from, 'A'))
}

/// A cursor movement; none for no steps, which terminals would take for one.
fn moved(steps: usize, direction: char) -> String {
    match steps {
        0 => String::new(),
        steps => format!("\x1b[{steps}{direction}"),
    }
}

/// What all words begin with.
fn common_beginning(words: &[String]) -> Option<String> {
    let (first, others) = words.split_first()?;
    let mut common = first.as_str();
    for word in others {
        let pairs = common.char_indices().zip(word.chars());
        let differs = pairs.into_iter().find(|((_, one), other)| one != other);
        let length = differs.map_or(common.len().min(word.len()), |((at, _), _)| at);
        common = common.get(..length).unwrap_or_default();
    }
    Some(common.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_share_a_beginning() {
        for (words, common) in [
            (&["select", "set"][..], "se"),
            (&["né", "nè"], "n"),
            (&["a", "ab"], "a"),
            (&["x", "y"], ""),
            (&["東京", "東"], "東"),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(common_beginning(&words).as_deref(), Some(common));
        }
        assert_eq!(common_beginning(&[]), None);
    }
}

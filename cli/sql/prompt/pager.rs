//! The screen: what is longer than it goes to a pager.
//!
//! In: bytes of a result. Out: the same on standard output, or in the pager's standard input once there are more rows than the screen has. Until then
//! they wait. Deliberately absent: a pager where standard output is no terminal.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use super::progress::Progress;
use crate::output::width;

/// Quits by itself where one screen is enough, shows colours, and cuts wide rows off, which the arrow keys then move through.
const USUAL: &str = "less -SRFX";

/// A result on its way to a person.
#[derive(Debug)]
pub(super) struct Screen {
    /// Its columns and rows.
    size: (usize, usize),
    state: State,
    /// How many rows are full, and how many columns of the last.
    filled: (usize, usize),
    progress: Progress,
}

#[derive(Debug)]
enum State {
    /// For a pager, as long as it is not known whether there must be one.
    Waiting {
        bytes: Vec<u8>,
        pager: String,
    },
    Paged {
        input: Option<ChildStdin>,
        pager: Child,
    },
    Plain,
}

impl Screen {
    /// A screen of this size; `progress` is erased before the first byte.
    pub(super) fn new(size: (usize, usize), progress: Progress) -> Self {
        let pager = io::stdout().is_terminal().then(chosen).flatten();
        let state = match pager {
            Some(pager) => State::Waiting {
                bytes: Vec::new(),
                pager,
            },
            None => State::Plain,
        };
        Self {
            size,
            state,
            filled: (0, 0),
            progress,
        }
    }

    /// Shows what waits, and waits for the reader to leave the pager.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.progress.erase();
        match std::mem::replace(&mut self.state, State::Plain) {
            State::Waiting { bytes, .. } => {
                let mut out = io::stdout().lock();
                out.write_all(&bytes)?;
                out.flush()
            }
            State::Paged { input, mut pager } => {
                drop(input);
                pager.wait().map(|_| ())
            }
            State::Plain => io::stdout().flush(),
        }
    }

    /// Takes note of how far the result reaches.
    fn measure(&mut self, bytes: &[u8]) {
        let (columns, _) = self.size;
        let text = String::from_utf8_lossy(bytes);
        for (index, line) in text.split('\n').enumerate() {
            let (rows, column) = &mut self.filled;
            if index > 0 {
                *rows += (*column).saturating_sub(1) / columns.max(1) + 1;
                *column = 0;
            }
            *column += width(line);
        }
    }

    fn is_full(&self) -> bool {
        // A row for the time, and one for the next prompt.
        self.filled.0 + 2 > self.size.1
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let State::Waiting { .. } = self.state {
            self.measure(bytes);
        }
        let is_full = self.is_full();
        match &mut self.state {
            State::Waiting { bytes: waiting, pager } => {
                waiting.extend_from_slice(bytes);
                if is_full {
                    self.progress.erase();
                    let mut child = Command::new("sh").args(["-c", pager]).stdin(Stdio::piped()).spawn()?;
                    let mut input = child.stdin.take();
                    let written = input.as_mut().map_or(Ok(()), |input| input.write_all(waiting));
                    self.state = State::Paged { input, pager: child };
                    written?;
                }
                Ok(bytes.len())
            }
            State::Paged { input: Some(input), .. } => input.write(bytes),
            State::Paged { input: None, .. } => Err(io::ErrorKind::BrokenPipe.into()),
            State::Plain => {
                self.progress.erase();
                io::stdout().lock().write(bytes)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.state {
            State::Waiting { .. } => Ok(()),
            State::Paged { input, .. } => input.as_mut().map_or(Ok(()), Write::flush),
            State::Plain => io::stdout().flush(),
        }
    }
}

/// The pager that the user wants.
fn chosen() -> Option<String> {
    choose(env::var("PAGER").ok(), || {
        is_installed(env::var_os("PATH").as_deref(), "less")
    })
}

fn choose(wanted: Option<String>, has_usual: impl FnOnce() -> bool) -> Option<String> {
    match wanted.as_deref().map(str::trim) {
        Some("" | "cat") => None,
        Some(_) => wanted,
        None => has_usual().then(|| USUAL.to_owned()),
    }
}

fn is_installed(path: Option<&OsStr>, program: &str) -> bool {
    path.is_some_and(|path| env::split_paths(path).any(|folder| Path::new(&folder).join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_pager_is_taken() {
        assert_eq!(choose(Some("more".to_owned()), || true).as_deref(), Some("more"));
        assert_eq!(choose(Some(String::new()), || true), None);
        assert_eq!(choose(Some("cat".to_owned()), || true), None);
        assert_eq!(choose(None, || true).as_deref(), Some(USUAL));
        assert_eq!(choose(None, || false), None);
    }

    #[test]
    fn rows_are_counted_as_the_screen_breaks_them() {
        let rows = |text: &[&str]| {
            let mut screen = Screen {
                size: (10, 5),
                state: State::Plain,
                filled: (0, 0),
                progress: Progress::none(),
            };
            for piece in text {
                screen.measure(piece.as_bytes());
            }
            (screen.filled.0, screen.is_full())
        };
        assert_eq!(rows(&["a\n", "b\n"]), (2, false));
        assert_eq!(rows(&["a", "\n", "b\nc\nd\n"]), (4, true));
        assert_eq!(rows(&["0123456789\n"]), (1, false), "as wide as the screen");
        assert_eq!(rows(&["0123456789a\n"]), (2, false));
        assert_eq!(rows(&["東京東京東", "京\n"]), (2, false));
    }
}

//! Parts of text files: the lines of a byte range, and quoted values that reach over lines.
//!
//! A range holds the lines that begin in it, so that ranges that cover a file cover each line once. A CSV value may hold
//! a line break between quotes; a range cannot know whether it begins inside such a value, so a scan of ranges fails
//! when there is one: the first one of a file is always seen by the range in which it begins, or ends that range amid
//! quotes. In: bytes of a file. Out: bytes.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The bytes of a file that are read at once.
pub(super) const BUFFER: usize = 256 * 1024;

/// The lines that begin in a range of bytes.
#[derive(Debug)]
pub(super) struct LineRange<R> {
    inner: BufReader<R>,
    position: u64,
    end: u64,
    at_line_start: bool,
    done: bool,
}

impl<R: Read + Seek> LineRange<R> {
    pub(super) fn open(mut file: R, range: &Range<u64>) -> io::Result<LineRange<R>> {
        let from = range.start.saturating_sub(1);
        file.seek(SeekFrom::Start(from))?;
        let inner = BufReader::with_capacity(BUFFER, file);
        let mut lines = LineRange {
            inner,
            position: from,
            end: range.end,
            at_line_start: true,
            done: false,
        };
        if range.start > 0 {
            lines.skip_line()?;
        }
        lines.done = lines.done || lines.position >= lines.end;
        Ok(lines)
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let available = self.inner.fill_buf()?;
            if available.is_empty() {
                self.done = true;
                return Ok(());
            }
            let line_end = available.iter().position(|byte| *byte == b'\n');
            let skipped = line_end.map_or(available.len(), |at| at + 1);
            self.inner.consume(skipped);
            self.position += skipped as u64;
            if line_end.is_some() {
                return Ok(());
            }
        }
    }
}

impl<R: Read> Read for LineRange<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.done || target.is_empty() || (self.position >= self.end && self.at_line_start) {
            return Ok(0);
        }
        let available = self.inner.fill_buf()?;
        let inside = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = available.len().min(target.len());
        let taken = match inside {
            // The last line reaches beyond the range.
            0 => available
                .iter()
                .take(wanted)
                .position(|byte| *byte == b'\n')
                .map_or(wanted, |at| at + 1),
            inside => wanted.min(inside),
        };
        let (Some(from), Some(to)) = (available.get(..taken), target.get_mut(..taken)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        match from.last() {
            None => self.done = true,
            Some(last) => self.at_line_start = *last == b'\n',
        }
        self.inner.consume(taken);
        self.position += taken as u64;
        Ok(taken)
    }
}

/// What a [`QuoteWatch`] has seen. Shared with the one who explains an error.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<AtomicU8>);

const LINE_BREAK: u8 = 1;
const OPEN_QUOTE: u8 = 2;

impl Seen {
    /// A line break between quotes.
    pub(super) fn line_break(&self) -> bool {
        self.0.load(Ordering::Relaxed) & LINE_BREAK != 0
    }

    /// The end of the data between quotes.
    pub(super) fn open_quote(&self) -> bool {
        self.0.load(Ordering::Relaxed) & OPEN_QUOTE != 0
    }

    fn note(&self, what: u8) {
        self.0.fetch_or(what, Ordering::Relaxed);
    }
}

/// Passes CSV text on and watches its quotes. A value that is never closed is an error, and so is, in a part of a file,
/// a line break inside a value.
#[derive(Debug)]
pub(super) struct QuoteWatch<R> {
    inner: R,
    delimiter: u8,
    quote: u8,
    escape: Option<u8>,
    refuse_line_breaks: bool,
    state: State,
    seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ValueStart,
    Plain,
    Quoted,
    Escaped,
    /// After a quote in a quoted value: its end, or the first of two.
    QuoteInQuoted,
}

impl<R: Read> QuoteWatch<R> {
    pub(super) fn new(inner: R, delimiter: u8, quote: u8, escape: Option<u8>, refuse_line_breaks: bool) -> Self {
        QuoteWatch {
            inner,
            delimiter,
            quote,
            escape,
            refuse_line_breaks,
            state: State::ValueStart,
            seen: Seen::default(),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    fn watch(&mut self, bytes: &[u8]) -> io::Result<()> {
        let between_values = matches!(self.state, State::ValueStart | State::Plain);
        if between_values && !bytes.contains(&self.quote) {
            if let Some(last) = bytes.last() {
                self.state = self.after_plain(*last);
            }
            return Ok(());
        }
        for byte in bytes {
            self.state = self.next(*byte)?;
        }
        Ok(())
    }

    fn next(&self, byte: u8) -> io::Result<State> {
        Ok(match self.state {
            State::ValueStart if byte == self.quote => State::Quoted,
            State::ValueStart | State::Plain => self.after_plain(byte),
            State::Quoted if Some(byte) == self.escape && byte != self.quote => State::Escaped,
            State::Quoted if byte == self.quote => State::QuoteInQuoted,
            State::Quoted | State::Escaped => {
                if byte == b'\n' {
                    self.seen.note(LINE_BREAK);
                    if self.refuse_line_breaks {
                        return Err(io::Error::other("a line break inside a value"));
                    }
                }
                State::Quoted
            }
            State::QuoteInQuoted if byte == self.quote => State::Quoted,
            State::QuoteInQuoted => self.after_plain(byte),
        })
    }

    fn after_plain(&self, byte: u8) -> State {
        if byte == self.delimiter || byte == b'\n' || byte == b'\r' {
            State::ValueStart
        } else {
            State::Plain
        }
    }
}

impl<R: Read> Read for QuoteWatch<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(target)?;
        if count == 0 && !target.is_empty() && matches!(self.state, State::Quoted | State::Escaped) {
            self.seen.note(OPEN_QUOTE);
            return Err(io::Error::other("a value that is never closed"));
        }
        self.watch(target.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}

/// The same bytes without the mark that some editors put in front of UTF-8.
pub(super) fn without_mark<R: Read>(mut inner: R) -> io::Result<impl Read> {
    let mut start = Vec::with_capacity(3);
    inner.by_ref().take(3).read_to_end(&mut start)?;
    if start == [0xEF, 0xBB, 0xBF] {
        start.clear();
    }
    Ok(io::Cursor::new(start).chain(inner))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn every_line_is_in_one_range() {
        let texts = [
            "a\nbb\n\nccc\nd",
            "a\n",
            "one long line without end",
            "\n\n\n",
            "ab\r\ncd\r\n",
        ];
        for text in texts {
            let size = text.len() as u64;
            for cut in 0..=size {
                for other in cut..=size {
                    let mut read = String::new();
                    for range in [0..cut, cut..other, other..size] {
                        if !range.is_empty() {
                            LineRange::open(Cursor::new(text), &range)
                                .unwrap()
                                .read_to_string(&mut read)
                                .unwrap();
                        }
                    }
                    assert_eq!(read, text, "cut at {cut} and {other}");
                }
            }
        }
    }

    #[test]
    fn quotes_are_watched() {
        let check = |text: &str, line_break: bool, open_quote: bool| {
            let mut watch = QuoteWatch::new(Cursor::new(text), b',', b'"', None, false);
            let seen = watch.seen();
            let result = watch.read_to_end(&mut Vec::new());
            assert_eq!(
                (seen.line_break(), seen.open_quote()),
                (line_break, open_quote),
                "{text:?}"
            );
            assert_eq!(result.is_err(), open_quote, "{text:?}");
        };
        check("a,b\n1,2\n", false, false);
        check("a,b\n\"1\n\",2\n", true, false);
        check("a,b\n\"1\"\"\n\",2\n", true, false);
        check("a,b\n\"x\",5\" pipe\n3,4\n", false, false);
        check("a,b\n\"1,2\n3,4\n", true, true);
        check("a,\"b", false, true);
    }
}

//! Rows that come one by one, joined.
//!
//! In: what a server sends, from its first message on. Out: the same messages, but those of a `COPY` that follow each other are one. A server sends a
//! message for each row, and whoever takes them has work for each; what is in them is a stream of bytes, which may be cut anywhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is asked of the socket at once.
const BUFFER: usize = 64 << 10;

/// The type of a message and its length, which counts itself and not the type.
const HEADER: usize = 5;
const LENGTH: usize = 4;

/// The type of a message that holds data of a `COPY`.
const COPY_DATA: u8 = b'd';

/// A stream whose messages are joined, or nothing but the stream.
pub(super) struct Joined<S> {
    inner: S,
    /// Empty when nothing is joined.
    buffer: Box<[u8]>,
    /// What of the buffer was read and not passed on yet.
    from: usize,
    to: usize,
    /// How many bytes are passed on as they are, before the next message begins.
    passed: usize,
}

/// What is to be done with what was read.
enum Next {
    /// There is too little of it to say.
    More,
    /// So many bytes are passed on as they are.
    Pass(usize),
    /// So many bytes are some messages of `COPY`, which hold so many.
    Join { bytes: usize, data: usize },
}

impl<S> Joined<S> {
    /// Joins the messages of a stream.
    pub(super) fn of(inner: S) -> Joined<S> {
        Joined {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            ..Joined::none(inner)
        }
    }

    /// Passes on what a stream has, which may be no messages.
    pub(super) fn none(inner: S) -> Joined<S> {
        Joined {
            inner,
            buffer: Box::default(),
            from: 0,
            to: 0,
            passed: 0,
        }
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.from..self.to).unwrap_or_default()
    }

    /// What to do when there is room for so many bytes.
    fn next(&self, room: usize) -> Next {
        let unread = self.unread();
        if self.passed > 0 {
            return if unread.is_empty() {
                Next::More
            } else {
                Next::Pass(self.passed)
            };
        }
        let (mut bytes, mut data) = (0, 0);
        let rows = |bytes, data| match bytes {
            0 => Next::More,
            bytes => Next::Join { bytes, data },
        };
        while let Some((kind, whole)) = front(unread.get(bytes..).unwrap_or_default()) {
            if kind != COPY_DATA {
                return match bytes {
                    0 => Next::Pass(others(unread)),
                    bytes => Next::Join { bytes, data },
                };
            }
            let is_there = bytes + whole <= unread.len();
            if is_there && data + whole <= room {
                bytes += whole;
                data += whole - HEADER;
                continue;
            }
            // There will never be so much in the buffer, or not so much at once in what it is put into.
            let is_large = is_there || whole > self.buffer.len();
            return if bytes == 0 && is_large {
                Next::Pass(whole)
            } else {
                rows(bytes, data)
            };
        }
        rows(bytes, data)
    }

    /// Puts some whole messages of `COPY` into one.
    fn join(&mut self, bytes: usize, data: usize, into: &mut ReadBuf<'_>) {
        let mut rest = self.unread().get(..bytes).unwrap_or_default();
        into.put_slice(&[COPY_DATA]);
        into.put_slice(&u32::try_from(data + LENGTH).unwrap_or(u32::MAX).to_be_bytes());
        while let Some((_, whole)) = front(rest) {
            let (message, after) = rest.split_at_checked(whole).unwrap_or((rest, &[]));
            into.put_slice(message.get(HEADER..).unwrap_or_default());
            rest = after;
        }
        self.from += bytes;
    }

    /// Passes bytes on as they are.
    fn pass(&mut self, into: &mut ReadBuf<'_>) {
        let unread = self.unread();
        let count = self.passed.min(unread.len()).min(into.remaining());
        into.put_slice(unread.get(..count).unwrap_or_default());
        self.from += count;
        self.passed -= count;
    }
}

/// The type of the message at the front of some bytes, and how many bytes all of it has. One whose length makes no sense has no type, and the least length:
/// whoever reads the messages says what is wrong with it.
fn front(bytes: &[u8]) -> Option<(u8, usize)> {
    let ([kind, length @ ..], _) = bytes.split_first_chunk::<HEADER>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or_default();
    Some(match length.checked_sub(LENGTH) {
        Some(body) => (*kind, HEADER + body),
        None => (0, HEADER),
    })
}

/// How many bytes the messages before the next one of `COPY` have, the last of which may be there in part.
fn others(bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((kind, whole)) = bytes.get(count..).and_then(front)
        && kind != COPY_DATA
    {
        count += whole;
    }
    count
}

impl<S: AsyncRead + Unpin> AsyncRead for Joined<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.buffer.is_empty() || into.remaining() == 0 {
            return Pin::new(&mut this.inner).poll_read(context, into);
        }
        loop {
            match this.next(into.remaining()) {
                Next::Join { bytes, data } => {
                    this.join(bytes, data, into);
                    return Poll::Ready(Ok(()));
                }
                Next::Pass(count) => {
                    this.passed = count;
                    this.pass(into);
                    return Poll::Ready(Ok(()));
                }
                Next::More => {}
            }
            this.buffer.copy_within(this.from..this.to, 0);
            (this.from, this.to) = (0, this.to - this.from);
            let free = this.buffer.get_mut(this.to..).unwrap_or_default();
            let mut read = ReadBuf::new(free);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            match read.filled().len() {
                // What is left is less than a message.
                0 if this.from < this.to => this.passed = this.to - this.from,
                0 => return Poll::Ready(Ok(())),
                count => this.to += count,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Joined<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Gives what it has in pieces of these sizes.
    struct Pieces(Vec<u8>, Vec<usize>);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.1.rotate_left(1);
            let count = self.1[0].min(self.0.len()).min(into.remaining());
            let rest = self.0.split_off(count);
            into.put_slice(&self.0);
            self.0 = rest;
            Poll::Ready(Ok(()))
        }
    }

    /// All that comes of some bytes, read into rooms of these sizes.
    fn read(bytes: &[u8], pieces: Vec<usize>, rooms: &[usize]) -> Vec<u8> {
        let mut joined = Joined::of(Pieces(bytes.to_vec(), pieces));
        let mut found = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for room in rooms.iter().cycle() {
            let mut into = vec![0; *room];
            match runtime.block_on(joined.read(&mut into)).unwrap() {
                0 => break,
                count => found.extend(&into[..count]),
            }
        }
        found
    }

    /// What is said: other messages, and the data between them.
    fn meaning(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut found: Vec<(u8, Vec<u8>)> = Vec::new();
        while let Some((kind, whole)) = front(bytes) {
            let (message, rest) = bytes.split_at(whole.min(bytes.len()));
            match found.last_mut() {
                Some((COPY_DATA, data)) if kind == COPY_DATA => data.extend(&message[HEADER..]),
                _ if kind == COPY_DATA => found.push((kind, message[HEADER..].to_vec())),
                _ => found.push((kind, message.to_vec())),
            }
            bytes = rest;
        }
        found.push((0, bytes.to_vec()));
        found
    }

    fn sent(messages: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (is_data, body) in messages {
            bytes.push(if *is_data { COPY_DATA } else { b'C' });
            bytes.extend(((body.len() + LENGTH) as u32).to_be_bytes());
            bytes.extend(body);
        }
        bytes
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_said_otherwise(
            messages in prop::collection::vec((prop::bool::weighted(0.8), prop::collection::vec(any::<u8>(), 0..60)), 0..40),
            pieces in prop::collection::vec(1..200_usize, 1..6),
            rooms in prop::collection::vec(1..200_usize, 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = sent(&messages);
            prop_assert_eq!(meaning(&read(&bytes, pieces.clone(), &rooms)), meaning(&bytes));
            bytes.truncate(cut.index(bytes.len() + 1));
            prop_assert_eq!(meaning(&read(&bytes, pieces, &rooms)), meaning(&bytes));
        }

        #[test]
        fn any_bytes_are_passed_on(
            bytes in prop::collection::vec(prop_oneof![Just(COPY_DATA), Just(0), any::<u8>()], 0..300),
            pieces in prop::collection::vec(1..200_usize, 1..6),
        ) {
            prop_assert_eq!(meaning(&read(&bytes, pieces, &[8192])), meaning(&bytes));
        }
    }

    #[test]
    fn rows_are_joined_and_large_ones_are_not_waited_for() {
        let rows: Vec<(bool, Vec<u8>)> = (0..1000).map(|_| (true, vec![7; 20])).collect();
        let found = read(&sent(&rows), vec![1 << 20], &[8192]);
        assert_eq!(found.len(), 1000 * 20 + 3 * HEADER);
        let large = sent(&[
            (true, vec![1; 3 * BUFFER]),
            (false, vec![2; 3 * BUFFER]),
            (true, vec![3]),
        ]);
        assert_eq!(read(&large, vec![1 << 20], &[8192]), large);
    }
}

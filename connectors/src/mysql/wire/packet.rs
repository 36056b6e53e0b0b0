//! Packets out of a socket and into it, and the fields in them.
//!
//! A packet has a length of three bytes and a number; one of the greatest length goes on in the next.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Failure;

/// What can be read from and written to: a socket, plain or inside TLS.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

/// The length of a packet that goes on in the next one.
const LONGEST_PART: usize = 0xff_ff_ff;

/// How much is asked of the socket at once.
const CHUNK: usize = 128 << 10;

/// No answer and no row may be longer: it would not be streamed.
const MOST_BYTES: usize = 256 << 20;

/// Reads and writes packets.
pub(super) struct Packets {
    transport: Box<dyn Transport>,
    /// What arrived; what is before `from` is done with.
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    /// A packet that came in parts.
    joined: Vec<u8>,
    next_number: u8,
}

/// Where the bytes of a packet are.
enum Found {
    Buffer(usize, usize),
    Joined,
}

impl Packets {
    pub(super) fn new(transport: Box<dyn Transport>) -> Packets {
        Packets {
            transport,
            buffer: Vec::new(),
            from: 0,
            to: 0,
            joined: Vec::new(),
            next_number: 0,
        }
    }

    /// Goes on over another transport, made of the one that was taken.
    pub(super) fn put_transport(&mut self, transport: Box<dyn Transport>) {
        self.transport = transport;
    }

    /// The socket, for who wraps it and puts it back by [`Packets::put_transport`].
    pub(super) fn take_transport(&mut self) -> Result<Box<dyn Transport>, Failure> {
        if self.from != self.to {
            return Err(Failure::Protocol("it says something before TLS has begun"));
        }
        Ok(std::mem::replace(&mut self.transport, Box::new(tokio::io::empty())))
    }

    /// The next packet begins a conversation.
    pub(super) fn restart(&mut self) {
        self.next_number = 0;
    }

    /// Sends a packet.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let mut bytes = Vec::with_capacity(payload.len() + 4);
        let mut rest = payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(LONGEST_PART));
            let [low, middle, high, ..] = (part.len() as u32).to_le_bytes();
            bytes.extend_from_slice(&[low, middle, high, self.next_number]);
            bytes.extend_from_slice(part);
            self.next_number = self.next_number.wrapping_add(1);
            rest = after;
            if part.len() < LONGEST_PART {
                break;
            }
        }
        self.transport.write_all(&bytes).await?;
        self.transport.flush().await?;
        Ok(())
    }

    /// The next packet.
    #[inline]
    pub(super) async fn receive(&mut self) -> Result<&[u8], Failure> {
        let found = match self.take_buffered()? {
            Some(found) => found,
            None => self.wait().await?,
        };
        Ok(match found {
            Found::Buffer(from, to) => self.buffer.get(from..to).unwrap_or_default(),
            Found::Joined => &self.joined,
        })
    }

    /// A packet that is there as a whole.
    #[inline]
    fn take_buffered(&mut self) -> Result<Option<Found>, Failure> {
        let available = self.buffer.get(self.from..self.to).unwrap_or_default();
        let Some(([low, middle, high, number], rest)) = available.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([*low, *middle, *high, 0]) as usize;
        if length == LONGEST_PART || rest.len() < length {
            return Ok(None);
        }
        self.count(*number)?;
        let begin = self.from + 4;
        self.from = begin + length;
        Ok(Some(Found::Buffer(begin, begin + length)))
    }

    fn count(&mut self, number: u8) -> Result<(), Failure> {
        if number != self.next_number {
            return Err(Failure::Protocol("its packets are out of order"));
        }
        self.next_number = number.wrapping_add(1);
        Ok(())
    }

    async fn wait(&mut self) -> Result<Found, Failure> {
        loop {
            let header = self.header();
            match header {
                Some((LONGEST_PART, _)) => return self.join().await,
                Some((length, _)) if length > MOST_BYTES => return Err(Failure::TooLarge),
                Some((length, _)) => self.fill(length + 4).await?,
                None => self.fill(4).await?,
            }
            if let Some(found) = self.take_buffered()? {
                return Ok(found);
            }
        }
    }

    fn header(&self) -> Option<(usize, u8)> {
        let available = self.buffer.get(self.from..self.to)?;
        let ([low, middle, high, number], _) = available.split_first_chunk::<4>()?;
        Some((u32::from_le_bytes([*low, *middle, *high, 0]) as usize, *number))
    }

    /// A packet in parts.
    async fn join(&mut self) -> Result<Found, Failure> {
        self.joined.clear();
        self.joined.shrink_to(CHUNK);
        loop {
            self.fill(4).await?;
            let Some((length, number)) = self.header() else {
                return Err(Failure::Protocol("a packet has no header"));
            };
            self.count(number)?;
            self.from += 4;
            if self.joined.len() + length > MOST_BYTES {
                return Err(Failure::TooLarge);
            }
            let mut missing = length;
            while missing > 0 {
                self.fill(1).await?;
                let available = self.buffer.get(self.from..self.to).unwrap_or_default();
                let (part, _) = available.split_at(available.len().min(missing));
                self.joined.extend_from_slice(part);
                self.from += part.len();
                missing -= part.len();
            }
            if length < LONGEST_PART {
                return Ok(Found::Joined);
            }
        }
    }

    /// Reads until at least so many bytes are there.
    async fn fill(&mut self, wanted: usize) -> Result<(), Failure> {
        if self.to - self.from >= wanted {
            return Ok(());
        }
        if self.from > 0 {
            self.buffer.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
        }
        let room = wanted.max(CHUNK);
        if self.buffer.len() < room || (self.buffer.len() > 4 * CHUNK && room == CHUNK && self.to < CHUNK) {
            self.buffer.resize(room, 0);
            self.buffer.shrink_to_fit();
        }
        while self.to < wanted {
            let free = self.buffer.get_mut(self.to..).unwrap_or_default();
            match self.transport.read(free).await? {
                0 => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                read => self.to += read,
            }
        }
        Ok(())
    }
}

/// Takes fields off the front of a packet. What is not there is `None`.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.fixed().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    /// Up to a NUL byte, which is taken too; without one all that is left.
    pub(super) fn until_nul(&mut self) -> &'a [u8] {
        match self.0.iter().position(|byte| *byte == 0) {
            Some(length) => {
                let taken = self.bytes(length).unwrap_or_default();
                let _ = self.u8();
                taken
            }
            None => std::mem::take(&mut self.0),
        }
    }

    /// A number with its length in front.
    pub(super) fn lenenc(&mut self) -> Option<u64> {
        let (number, rest) = lenenc(self.0)?;
        self.0 = rest;
        Some(number)
    }

    /// Bytes with their length in front.
    pub(super) fn lenenc_bytes(&mut self) -> Option<&'a [u8]> {
        let (taken, rest) = lenenc_bytes(self.0)?;
        self.0 = rest;
        Some(taken)
    }
}

/// A number of one byte, or behind a mark of two, three or eight.
#[inline]
fn lenenc(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    match first {
        0..=0xfa => Some((u64::from(*first), rest)),
        0xfc => {
            let (number, rest) = rest.split_first_chunk::<2>()?;
            Some((u64::from(u16::from_le_bytes(*number)), rest))
        }
        0xfd => {
            let ([low, middle, high], rest) = rest.split_first_chunk::<3>()?;
            Some((u64::from(u32::from_le_bytes([*low, *middle, *high, 0])), rest))
        }
        0xfe => {
            let (number, rest) = rest.split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*number), rest))
        }
        0xfb | 0xff => None,
    }
}

/// Bytes with their length in front, and what is behind them.
#[inline]
pub(in super::super) fn lenenc_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = lenenc(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// Adds bytes with their length in front.
pub(super) fn push_lenenc_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..=0xfa => into.push(length as u8),
        length @ 0xfb..=0xffff => {
            into.push(0xfc);
            into.extend_from_slice(&(length as u16).to_le_bytes());
        }
        length => {
            into.push(0xfe);
            into.extend_from_slice(&(length as u64).to_le_bytes());
        }
    }
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        bytes.push(number);
        bytes.extend_from_slice(payload);
        bytes
    }

    async fn received(bytes: Vec<u8>, count: usize) -> Result<Vec<Vec<u8>>, Failure> {
        let (near, mut far) = tokio::io::duplex(1000);
        let writing = tokio::spawn(async move {
            let _ = far.write_all(&bytes).await;
        });
        let mut packets = Packets::new(Box::new(near));
        let mut found = Vec::new();
        for _ in 0..count {
            found.push(packets.receive().await?.to_vec());
        }
        writing.await.unwrap();
        Ok(found)
    }

    #[tokio::test]
    async fn packets_of_any_length_arrive_whole() {
        let long = vec![7_u8; LONGEST_PART + 5];
        let exact = vec![8_u8; LONGEST_PART];
        let middle = vec![9_u8; 3 * CHUNK];
        let mut bytes = packet(0, b"");
        bytes.extend(packet(1, b"abc"));
        bytes.extend(packet(2, &long[..LONGEST_PART]));
        bytes.extend(packet(3, &long[LONGEST_PART..]));
        bytes.extend(packet(4, &exact));
        bytes.extend(packet(5, b""));
        bytes.extend(packet(6, &middle));
        bytes.extend(packet(7, b"end"));
        let found = received(bytes, 6).await.unwrap();
        assert!(found == [b"".to_vec(), b"abc".to_vec(), long, exact, middle, b"end".to_vec()]);
    }

    #[tokio::test]
    async fn what_is_cut_or_out_of_order_is_no_packet() {
        assert!(matches!(received(packet(1, b"x"), 1).await, Err(Failure::Protocol(_))));
        let mut cut = packet(0, b"abcd");
        cut.pop();
        assert!(matches!(received(cut, 1).await, Err(Failure::Io(_))));
    }

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for length in [0, 1, 0xfa, 0xfb, 0xfc, 0xff, 0x100, 0xffff, 0x1_0000, 0x0100_0000] {
            let mut bytes = Vec::new();
            push_lenenc_bytes(&mut bytes, &vec![1; length]);
            bytes.push(9);
            let (found, rest) = lenenc_bytes(&bytes).unwrap();
            assert_eq!((found.len(), rest), (length, [9].as_slice()));
            assert_eq!(lenenc_bytes(&bytes[..bytes.len() - 2]), None);
        }
        assert_eq!(lenenc(&[0xfd, 1, 0, 1]), Some((0x1_0001, [].as_slice())));
        assert_eq!(lenenc(&[0xfb]), None);
        assert_eq!(lenenc(&[]), None);
    }
}

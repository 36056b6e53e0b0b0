//! Parts of one object, with as few requests as are worth it.
//!
//! In: ranges of bytes, and a way to ask for one. Out: the bytes of each range, or a fault if an answer is shorter than what was asked for.
//! What arrives is copied once, to where it stays: each part has memory of its own, so that keeping one keeps nothing else.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{OBJECT_STORE_COALESCE_DEFAULT, Result};

use super::failure;
use crate::ErrorKind;
use crate::files::fault::Fault;

/// How many requests for parts of one object run at once.
const AT_ONCE: usize = 10;

/// The bytes of each range. Ranges that are less than 1 MiB apart are asked for together: to wait for another answer takes longer than to
/// receive what lies between them.
pub(super) async fn read<A>(ranges: &[Range<u64>], ask: impl Fn(Range<u64>) -> A) -> Result<Vec<Bytes>>
where
    A: Future<Output = Result<BoxStream<'static, Result<Bytes>>>>,
{
    let spans = spans(ranges);
    let read_span = |span: Span| {
        let asked = ask(span.range.clone());
        async move { span.fill(asked.await?).await }
    };
    let filled: Vec<Vec<(usize, Bytes)>> = futures::stream::iter(spans)
        .map(read_span)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut parts = vec![Bytes::new(); ranges.len()];
    for (index, bytes) in filled.into_iter().flatten() {
        if let Some(part) = parts.get_mut(index) {
            *part = bytes;
        }
    }
    Ok(parts)
}

/// What one request asks for.
struct Span {
    range: Range<u64>,
    parts: Vec<Part>,
}

struct Part {
    /// Its place among all that are asked for.
    index: usize,
    range: Range<u64>,
    bytes: Vec<u8>,
}

fn spans(ranges: &[Range<u64>]) -> Vec<Span> {
    let mut sorted: Vec<(usize, &Range<u64>)> = ranges.iter().enumerate().collect();
    sorted.sort_unstable_by_key(|(_, range)| range.start);
    let mut spans: Vec<Span> = vec![];
    for (index, range) in sorted.into_iter().filter(|(_, range)| !range.is_empty()) {
        let part = Part {
            index,
            range: range.clone(),
            bytes: vec![],
        };
        match spans.last_mut() {
            Some(span) if range.start <= span.range.end.saturating_add(OBJECT_STORE_COALESCE_DEFAULT) => {
                span.range.end = span.range.end.max(range.end);
                span.parts.push(part);
            }
            _ => spans.push(Span {
                range: range.clone(),
                parts: vec![part],
            }),
        }
    }
    spans
}

impl Span {
    /// The bytes of its parts, with their places.
    async fn fill(mut self, mut answer: BoxStream<'static, Result<Bytes>>) -> Result<Vec<(usize, Bytes)>> {
        let mut at = self.range.start;
        while let Some(piece) = answer.try_next().await? {
            for part in &mut self.parts {
                part.take(at, &piece);
            }
            at += piece.len() as u64;
        }
        if at < self.range.end {
            let message = "is shorter than it should be, or its answer was cut off";
            return Err(failure::as_error(Fault::new(ErrorKind::Unreachable, message)));
        }
        Ok(self
            .parts
            .into_iter()
            .map(|part| (part.index, Bytes::from(part.bytes)))
            .collect())
    }
}

impl Part {
    /// Takes what belongs to it of a piece that begins `at` a place of the object.
    fn take(&mut self, at: u64, piece: &[u8]) {
        let next = self.range.start + self.bytes.len() as u64;
        let end = self.range.end.min(at + piece.len() as u64);
        if next >= end || next < at {
            return;
        }
        if self.bytes.is_empty() {
            self.bytes.reserve_exact((self.range.end - self.range.start) as usize);
        }
        let within = (next - at) as usize..(end - at) as usize;
        self.bytes.extend_from_slice(piece.get(within).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn read_of(
        object: &[u8],
        ranges: &[Range<u64>],
        piece: usize,
        missing: usize,
    ) -> (Result<Vec<Bytes>>, Vec<Range<u64>>) {
        let asked = RefCell::new(vec![]);
        let ask = |range: Range<u64>| {
            let answer = &object[range.start as usize..range.end as usize];
            let answer = &answer[..answer.len().saturating_sub(missing)];
            let pieces: Vec<_> = answer
                .chunks(piece)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            asked.borrow_mut().push(range);
            async move { Ok(futures::stream::iter(pieces).boxed()) }
        };
        let parts = read(ranges, ask).now_or_never().unwrap();
        (parts, asked.into_inner())
    }

    #[test]
    fn near_parts_are_one_request_and_far_ones_are_not() {
        let object: Vec<u8> = (0..4_000_000_u32).map(|at| (at / 7) as u8).collect();
        let ranges = [3_000_000..3_000_010, 0..10, 900_000..900_005];
        let (parts, asked) = read_of(&object, &ranges, 1 << 16, 0);
        let parts = parts.unwrap();
        for (part, range) in parts.iter().zip(&ranges) {
            assert_eq!(part, &object[range.start as usize..range.end as usize]);
        }
        assert_eq!(asked, [0..900_005, 3_000_000..3_000_010]);
    }

    #[test]
    fn a_short_answer_is_a_fault() {
        let (parts, _) = read_of(&[7; 100], &[0..10, 90..100], 8, 3);
        assert!(parts.unwrap_err().to_string().contains("cut off"));
    }

    proptest! {
        #[test]
        fn parts_are_what_lies_there(
            ranges in prop::collection::vec((0_u64..300, 0_u64..50), 0..12),
            piece in 1_usize..70,
        ) {
            let object: Vec<u8> = (0..400_u32).map(|at| at as u8).collect();
            let ranges: Vec<_> = ranges.into_iter().map(|(start, length)| start..start + length).collect();
            let (parts, asked) = read_of(&object, &ranges, piece, 0);
            let parts = parts.unwrap();
            prop_assert_eq!(parts.len(), ranges.len());
            for (part, range) in parts.iter().zip(&ranges) {
                prop_assert_eq!(part.as_ref(), &object[range.start as usize..range.end as usize]);
            }
            prop_assert!(asked.len() <= 1);
        }
    }
}

//! Arrow files, with or without a footer.
//!
//! In: a file and the columns that are wanted. Out: batches with those of them that the file has; the caller adds the
//! others and widens types. A file with a footer can be read in parts, others are read whole.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader, read_footer_length};

use super::fault::Fault;
use super::lines::BUFFER;
use super::rows::{Batches, Input, ReadSeek, Request};

const MAGIC: &[u8; 6] = b"ARROW1";
const END_MARK: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];

/// The schema that a file begins or ends with.
pub(super) fn schema(input: &Input) -> Result<Schema, Fault> {
    let mut file = input.open()?;
    let schema = if has_footer(&mut file)? {
        FileReader::try_new(BufReader::new(file), None)
            .map_err(|error| damaged(&error))?
            .schema()
    } else {
        StreamReader::try_new(BufReader::new(file), None)
            .map_err(|error| damaged(&error))?
            .schema()
    };
    Ok(schema.as_ref().clone())
}

/// Reads an Arrow file.
pub(super) fn open(input: &Input, request: &Request) -> Result<Batches, Fault> {
    let mut file = input.open()?;
    if !has_footer(&mut file)? {
        // Without a footer no part but the first knows where a batch begins: it stands for all.
        if request.range.as_ref().is_some_and(|range| range.start > 0) {
            return Ok(Box::new(std::iter::empty()));
        }
        check_end_mark(&mut file)?;
        let schema = schema(input)?;
        let columns = columns_of(&schema, &request.wanted);
        let mut reader = StreamReader::try_new(BufReader::with_capacity(BUFFER, file), Some(columns))
            .map_err(|error| damaged(&error))?;
        let mut is_open = true;
        return Ok(Box::new(std::iter::from_fn(move || match reader.next() {
            Some(batch) => Some(batch.map_err(|error| damaged(&error))),
            None => {
                let is_all = !is_open || is_at_end(reader.get_mut());
                is_open = false;
                (!is_all).then(|| Err(not_arrow()))
            }
        })));
    }
    let chosen = match &request.range {
        Some(range) => Some(blocks(&mut file, range)?),
        None => None,
    };
    let schema = schema(input)?;
    let mut reader = FileReader::try_new(
        BufReader::with_capacity(BUFFER, file),
        Some(columns_of(&schema, &request.wanted)),
    )
    .map_err(|error| damaged(&error))?;
    Ok(match chosen {
        None => Box::new(reader.map(|batch| batch.map_err(|error| damaged(&error)))),
        Some(chosen) => Box::new(chosen.into_iter().map(move |block| {
            reader.set_index(block).map_err(|error| damaged(&error))?;
            match reader.next() {
                Some(batch) => batch.map_err(|error| damaged(&error)),
                None => Err(Fault::corrupt("is damaged: it has fewer parts than its footer says")),
            }
        })),
    })
}

/// The columns of a file that are wanted, ascending.
pub(super) fn columns_of(file: &Schema, wanted: &SchemaRef) -> Vec<usize> {
    let is_wanted = |name: &str| wanted.fields().iter().any(|field| field.name() == name);
    file.fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| is_wanted(field.name()))
        .map(|(at, _)| at)
        .collect()
}

fn has_footer(file: &mut Box<dyn ReadSeek>) -> Result<bool, Fault> {
    let mut start = Vec::with_capacity(MAGIC.len());
    let look = |file: &mut Box<dyn ReadSeek>, start: &mut Vec<u8>| {
        file.by_ref().take(MAGIC.len() as u64).read_to_end(start)?;
        file.seek(SeekFrom::Start(0))
    };
    look(file, &mut start).map_err(|error| Fault::io(&error))?;
    Ok(start == MAGIC)
}

/// A stream ends with a mark; the decoder takes any end for one, and would leave out rows.
fn check_end_mark(file: &mut Box<dyn ReadSeek>) -> Result<(), Fault> {
    let mut end = Vec::with_capacity(END_MARK.len());
    let look = |file: &mut Box<dyn ReadSeek>, end: &mut Vec<u8>| {
        let size = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(size.saturating_sub(END_MARK.len() as u64)))?;
        file.read_to_end(end)?;
        file.seek(SeekFrom::Start(0))
    };
    look(file, &mut end).map_err(|error| Fault::io(&error))?;
    if end == END_MARK { Ok(()) } else { Err(not_arrow()) }
}

/// Whether a stream ended where its file does, and not at something in the midst that looks like an end.
fn is_at_end(file: &mut BufReader<Box<dyn ReadSeek>>) -> bool {
    let position = file.stream_position();
    let size = file.seek(SeekFrom::End(0));
    position.is_ok_and(|position| size.is_ok_and(|size| position == size))
}

/// The batches that begin in a range of bytes.
fn blocks(file: &mut Box<dyn ReadSeek>, range: &Range<u64>) -> Result<Vec<usize>, Fault> {
    let damaged = || Fault::corrupt("is damaged: its footer cannot be read");
    let mut read = |from_end: i64, length: usize| -> Result<Vec<u8>, Fault> {
        file.seek(SeekFrom::End(-from_end)).map_err(|_| damaged())?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).map_err(|_| damaged())?;
        Ok(bytes)
    };
    let tail: [u8; 10] = read(10, 10)?.try_into().map_err(|_| damaged())?;
    let length = read_footer_length(tail).map_err(|_| damaged())?;
    let from_end = i64::try_from(length)
        .ok()
        .and_then(|length| length.checked_add(10))
        .ok_or_else(damaged)?;
    let bytes = read(from_end, length)?;
    let footer = arrow::ipc::root_as_footer(&bytes).map_err(|_| damaged())?;
    file.seek(SeekFrom::Start(0)).map_err(|_| damaged())?;
    let offsets = footer
        .recordBatches()
        .into_iter()
        .flatten()
        .map(|block| u64::try_from(block.offset()).unwrap_or(0));
    Ok(offsets
        .enumerate()
        .filter(|(_, offset)| range.contains(offset))
        .map(|(at, _)| at)
        .collect())
}

fn damaged(error: &ArrowError) -> Fault {
    match error {
        ArrowError::IoError(_, error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Fault::io(error),
        _ => not_arrow(),
    }
}

fn not_arrow() -> Fault {
    Fault::corrupt("is damaged or is not an Arrow file")
}

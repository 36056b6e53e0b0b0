//! CSV files.
//!
//! Columns are found by the names in the header of each file, so that files may have them in different order and lack
//! some. In: a file and the columns that are wanted. Out: batches. Values that the decoder cannot read are reported by
//! line and column, never quoted.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::fault::Fault;
use super::formats::{Compression, is_tab_separated};
use super::lines::{BUFFER, LineRange, QuoteWatch, Seen, without_mark};
use super::rows::{Batches, Input, Request};
use super::settings::TextSettings;
use crate::ErrorKind;

/// How the text of one file is written.
#[derive(Debug, Clone)]
pub(super) struct Dialect<'a> {
    settings: &'a TextSettings,
    delimiter: u8,
    compression: Compression,
}

impl<'a> Dialect<'a> {
    pub(super) fn of(settings: &'a TextSettings, name: &str) -> Dialect<'a> {
        let usual = if is_tab_separated(name) { b'\t' } else { b',' };
        let delimiter = settings.delimiter.unwrap_or(usual);
        Dialect {
            settings,
            delimiter,
            compression: settings.compression_of(name),
        }
    }

    /// The text of a file, or the lines of one part of it.
    fn text(
        &self,
        input: &Input,
        part: Option<&std::ops::Range<u64>>,
    ) -> Result<QuoteWatch<Box<dyn Read + Send>>, Fault> {
        let file = input.open()?;
        let text: Box<dyn Read + Send> = match part {
            Some(part) if part.start > 0 => Box::new(LineRange::open(file, part).map_err(|error| Fault::io(&error))?),
            Some(part) => {
                let lines = LineRange::open(file, part).map_err(|error| Fault::io(&error))?;
                Box::new(without_mark(lines).map_err(|error| Fault::io(&error))?)
            }
            None => {
                let text = self.compression.decompress(BufReader::with_capacity(BUFFER, file))?;
                Box::new(without_mark(text).map_err(|error| self.unreadable(&error))?)
            }
        };
        Ok(QuoteWatch::new(
            text,
            self.delimiter,
            self.settings.quote,
            self.settings.escape,
            part.is_some(),
        ))
    }

    fn format(&self) -> Result<CsvFormat, Fault> {
        let format = CsvFormat::default()
            .with_header(self.settings.header)
            .with_delimiter(self.delimiter)
            .with_quote(self.settings.quote);
        let format = match self.settings.escape {
            Some(escape) => format.with_escape(escape),
            None => format,
        };
        Ok(match self.null_pattern() {
            Some(pattern) => format.with_null_regex(pattern.parse().map_err(|_| bad_null())?),
            None => format,
        })
    }

    fn null_pattern(&self) -> Option<String> {
        let null = self.settings.null.as_deref()?;
        let literal: String = null
            .chars()
            .map(|character| match character {
                letter if letter.is_alphanumeric() => letter.to_string(),
                other => format!("\\x{{{:x}}}", u32::from(other)),
            })
            .collect();
        Some(format!("^(?:|{literal})$"))
    }

    fn unreadable(&self, error: &std::io::Error) -> Fault {
        match self.compression {
            Compression::None => Fault::io(error),
            _ => Fault::corrupt("is damaged: it cannot be decompressed to its end"),
        }
    }

    /// What an error means in a part of a file that begins at byte `part`, or in a whole file.
    fn fault(&self, error: &ArrowError, columns: &[String], seen: &Seen, part: Option<u64>) -> Fault {
        match part {
            None if seen.open_quote() => return Fault::corrupt("ends inside a quoted value"),
            Some(_) if seen.open_quote() || seen.line_break() => {
                let message = "has a line break inside a quoted value, or a quote that is never closed, so that it cannot \
                               be split; set `multiline: true`";
                return Fault::new(ErrorKind::Unsupported, message);
            }
            _ => {}
        }
        let place = |line: usize| match part {
            None | Some(0) => format!("line {line}"),
            Some(from) => format!("line {line} after byte {from}"),
        };
        match error {
            ArrowError::ParseError(text) => match bad_value(text) {
                Some((column, line)) => {
                    let column = columns
                        .get(column)
                        .map_or_else(String::new, |name| format!(" in column `{name}`"));
                    let message = format!(
                        "has a value{column} ({}) that is not of the column's type; the type was guessed from the first \
                         rows, see `sample` and `null`",
                        place(line)
                    );
                    Fault::new(ErrorKind::BadValue, message)
                }
                None => Fault::new(ErrorKind::BadValue, "has a value that is not of its column's type"),
            },
            ArrowError::CsvError(text) => {
                match (numbers_after(text, "incorrect number of fields for line "), utf8(text)) {
                    (Some(numbers), _) => fields(&numbers, &place),
                    (None, Some(line)) => Fault::corrupt(format!("has bytes that are not UTF-8 ({})", place(line))),
                    (None, None) => match unequal(text) {
                        Some(numbers) => fields(&numbers, &place),
                        None if text.contains("UTF-8") => Fault::corrupt("has bytes that are not UTF-8"),
                        None => Fault::corrupt("is not CSV, or cannot be decompressed to its end"),
                    },
                }
            }
            ArrowError::IoError(_, error) => self.unreadable(error),
            _ => Fault::corrupt("is not CSV"),
        }
    }
}

fn fields(numbers: &[usize], place: &dyn Fn(usize) -> String) -> Fault {
    let message = match numbers {
        [line, expected, found] if found == expected => {
            format!("has too many values in {}; expected {expected}", place(*line))
        }
        [line, expected, 1] => format!("has 1 value in {}; expected {expected}", place(*line)),
        [line, expected, found] => format!("has {found} values in {}; expected {expected}", place(*line)),
        _ => "has a line with a wrong number of values".to_owned(),
    };
    Fault::corrupt(message)
}

/// `incorrect number of fields for line 3, expected 2 got 1` (or `got more than 2`).
fn numbers_after(text: &str, start: &str) -> Option<Vec<usize>> {
    let rest = text.split_once(start).map(|(_, rest)| rest)?;
    Some(
        rest.split(|character: char| !character.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect(),
    )
}

/// `Encountered unequal lengths between records on CSV file. Expected 3 records, found 2 records at line 3`.
fn unequal(text: &str) -> Option<Vec<usize>> {
    match numbers_after(text, "unequal lengths")?.as_slice() {
        [expected, found, line] => Some(vec![*line, *expected, *found]),
        _ => None,
    }
}

fn utf8(text: &str) -> Option<usize> {
    numbers_after(text, "invalid UTF-8 data for line ")?.first().copied()
}

/// Column and line in the decoder's text, which begins with the value and ends with the row.
fn bad_value(text: &str) -> Option<(usize, usize)> {
    let rest = text.split_once("' for column ").map(|(_, rest)| rest)?;
    let (column, rest) = rest.split_once(" at line ")?;
    let line: String = rest.chars().take_while(char::is_ascii_digit).collect();
    // The decoder counts lines from zero.
    Some((column.parse().ok()?, line.parse::<usize>().ok()? + 1))
}

fn bad_null() -> Fault {
    Fault::new(
        ErrorKind::Settings,
        "cannot be read: the setting `null` cannot be looked for",
    )
}

/// What a look at the first rows of a file tells.
#[derive(Debug, Clone)]
pub(super) struct Inferred {
    pub(super) schema: Schema,
    pub(super) multiline: bool,
}

/// Guesses names and types from the first rows.
pub(super) fn infer(input: &Input, dialect: &Dialect<'_>) -> Result<Inferred, Fault> {
    let text = dialect.text(input, None)?;
    let seen = text.seen();
    let (schema, _) = dialect
        .format()?
        .infer_schema(BufReader::with_capacity(BUFFER, text), dialect.settings.sample)
        .map_err(|error| dialect.fault(&error, &[], &seen, None))?;
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    check_names(&names)?;
    Ok(Inferred {
        schema,
        multiline: seen.line_break(),
    })
}

/// The names of the columns of a file.
fn columns(input: &Input, dialect: &Dialect<'_>) -> Result<Vec<String>, Fault> {
    let text = dialect.text(input, None)?;
    let seen = text.seen();
    let (schema, _) = dialect
        .format()?
        .infer_schema(text, Some(0))
        .map_err(|error| dialect.fault(&error, &[], &seen, None))?;
    Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
}

fn check_names(names: &[String]) -> Result<(), Fault> {
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            let message = format!(
                "has no name for column {} in its header; set `header: false` if it has none",
                at + 1
            );
            return Err(Fault::corrupt(message));
        }
        if names.iter().skip(at + 1).any(|other| other == name) {
            return Err(Fault::corrupt(format!("has two columns `{name}` in its header")));
        }
    }
    Ok(())
}

/// Reads the wanted columns of a file, or of a part of it.
pub(super) fn open(input: &Input, request: &Request, dialect: &Dialect<'_>) -> Result<Batches, Fault> {
    let names = columns(input, dialect)?;
    if names.is_empty() {
        return Ok(Box::new(std::iter::empty()));
    }
    let part = request.range.as_ref();
    let from = part.map(|part| part.start);
    let text = dialect.text(input, part)?;
    let seen = text.seen();
    let shape = Shape::of(&names, &request.wanted);
    let mut builder = ReaderBuilder::new(Arc::clone(&shape.file))
        .with_header(dialect.settings.header && from.is_none_or(|from| from == 0))
        .with_delimiter(dialect.delimiter)
        .with_quote(dialect.settings.quote)
        .with_batch_size(request.batch_size)
        .with_projection(shape.read.clone());
    if let Some(escape) = dialect.settings.escape {
        builder = builder.with_escape(escape);
    }
    if let Some(pattern) = dialect.null_pattern() {
        builder = builder.with_null_regex(pattern.parse().map_err(|_| bad_null())?);
    }
    let reader = builder
        .build_buffered(BufReader::with_capacity(BUFFER, text))
        .map_err(|error| dialect.fault(&error, &names, &seen, from))?;
    let settings = dialect.settings.clone();
    let (delimiter, compression) = (dialect.delimiter, dialect.compression);
    Ok(Box::new(reader.map(move |batch| {
        let dialect = Dialect {
            settings: &settings,
            delimiter,
            compression,
        };
        let batch = batch.map_err(|error| dialect.fault(&error, &names, &seen, from))?;
        shape.arrange(&batch)
    })))
}

/// How the columns of a file become the wanted ones.
#[derive(Debug)]
struct Shape {
    /// All columns of the file, in its order.
    file: SchemaRef,
    /// Which of them are decoded, ascending.
    read: Vec<usize>,
    wanted: SchemaRef,
    /// For each wanted column its place among those decoded.
    source: Vec<Option<usize>>,
}

impl Shape {
    fn of(names: &[String], wanted: &SchemaRef) -> Shape {
        let types: HashMap<&str, &Field> = wanted
            .fields()
            .iter()
            .map(|field| (field.name().as_str(), field.as_ref()))
            .collect();
        let field = |name: &String| match types.get(name.as_str()) {
            Some(field) => Field::new(name, field.data_type().clone(), true),
            None => Field::new(name, DataType::Utf8, true),
        };
        let file = Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()));
        let read: Vec<usize> = (0..names.len())
            .filter(|at| names.get(*at).is_some_and(|name| types.contains_key(name.as_str())))
            .collect();
        let place = |name: &str| {
            read.iter()
                .position(|at| names.get(*at).is_some_and(|other| other == name))
        };
        let source = wanted.fields().iter().map(|field| place(field.name())).collect();
        Shape {
            file,
            read,
            wanted: Arc::clone(wanted),
            source,
        }
    }

    fn arrange(&self, batch: &RecordBatch) -> Result<RecordBatch, Fault> {
        let rows = batch.num_rows();
        let column = |(field, source): (&Arc<Field>, &Option<usize>)| -> ArrayRef {
            match source.and_then(|at| batch.columns().get(at)) {
                Some(column) => Arc::clone(column),
                None => new_null_array(field.data_type(), rows),
            }
        };
        let columns: Vec<ArrayRef> = self.wanted.fields().iter().zip(&self.source).map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options)
            .map_err(|_| Fault::new(ErrorKind::Changed, "has other columns than when the query was planned"))
    }
}

//! Record batches as Flight messages.
//!
//! In: batches of the engine. Out: a schema message, then one message for each piece of at most [`MESSAGE_BYTES`] (a single larger row
//! goes out whole). Clients limit messages, often to 4 MiB, and many of them do not know Arrow's newer layouts, so that views,
//! dictionaries and run-end encoding leave as plain arrays; [`wire_schema`] says beforehand what will arrive, exactly.
//! Deliberately absent: compression of buffers, which not every client can read.

use std::{pin::Pin, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, make_array},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions},
};
use arrow_flight::{FlightData, SchemaAsIpc};
use datafusion::error::DataFusionError;
use futures::{Stream, StreamExt};
use tonic::Status;

use super::status::{guarded_stream, internal, status_of_stream};

/// The size that a message should not exceed.
const MESSAGE_BYTES: usize = 2 << 20;

/// What is converted at once: plain strings have 32-bit offsets, and until it is sent it is in memory twice.
const CONVERT_BYTES: usize = 16 << 20;

/// A field as clients will see it.
fn wire_field(field: &FieldRef) -> FieldRef {
    let data_type = wire_type(field.data_type());
    if data_type == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::clone(field).with_data_type(data_type))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => wire_type(value),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        DataType::List(field) | DataType::ListView(field) => DataType::List(wire_field(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => DataType::LargeList(wire_field(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(wire_field(field), *size),
        DataType::Map(field, sorted) => DataType::Map(wire_field(field), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        other => other.clone(),
    }
}

/// The schema of a result as clients will see it, in FlightInfo and in the stream alike.
pub(super) fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(wire_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Encodes a stream of batches, whose schema is sent first even when no row follows. A message is made when it is asked for: a slow client
/// keeps one batch in memory, not its messages as well.
pub(super) fn encode(
    schema: &Schema,
    batches: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
) -> impl Stream<Item = Result<FlightData, Status>> + Send + 'static {
    let encoder = Encoder::new(wire_schema(schema));
    let first = futures::stream::iter([Ok(encoder.schema_message())]);
    let sending = Sending {
        batches: Box::pin(batches),
        encoder,
        batch: Vec::new(),
        pieces: Vec::new(),
    };
    let rest = futures::stream::unfold(Some(sending), |sending| async {
        let mut sending = sending?;
        match sending.next().await? {
            Ok(message) => Some((Ok(message), Some(sending))),
            // The first error is the end.
            Err(status) => Some((Err(status), None)),
        }
    });
    first.chain(guarded_stream(rest))
}

/// A result on its way out.
struct Sending<S> {
    batches: Pin<Box<S>>,
    encoder: Encoder,
    /// What is left of a batch, the next part last.
    batch: Vec<RecordBatch>,
    /// What is left of a part in the types of the wire, the next piece last.
    pieces: Vec<RecordBatch>,
}

impl<S: Stream<Item = Result<RecordBatch, DataFusionError>>> Sending<S> {
    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
        loop {
            let done = if let Some(piece) = self.pieces.pop() {
                self.encoder.message(&piece).map(Some)
            } else if let Some(part) = self.batch.pop() {
                self.encoder.convert(&part).map(|part| {
                    self.pieces = cut(part, MESSAGE_BYTES);
                    None
                })
            } else {
                match self.batches.next().await? {
                    Ok(batch) => self.batch = cut(batch, CONVERT_BYTES),
                    Err(error) => return Some(Err(status_of_stream(error))),
                }
                continue;
            };
            match done {
                Ok(None) => {}
                Ok(Some(message)) => return Some(Ok(message)),
                Err(error) => return Some(Err(internal("a result cannot be encoded", &error))),
            }
        }
    }
}

struct Encoder {
    schema: SchemaRef,
    options: IpcWriteOptions,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            options: IpcWriteOptions::default(),
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(true),
            context: IpcWriteContext::default(),
        }
    }

    fn schema_message(&self) -> FlightData {
        SchemaAsIpc::new(&self.schema, &self.options).into()
    }

    fn message(&mut self, piece: &RecordBatch) -> Result<FlightData, ArrowError> {
        let (_, encoded) = self
            .generator
            .encode(piece, &mut self.dictionaries, &self.options, &mut self.context)?;
        Ok(encoded.into())
    }

    /// A batch in the types of the wire's schema.
    fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = self.schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                cast(column, field.data_type())
            }
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

/// Cuts a batch into pieces of at most `limit` bytes and at least one row, the first one last; an empty batch has none.
fn cut(batch: RecordBatch, limit: usize) -> Vec<RecordBatch> {
    let mut pieces = Vec::new();
    let mut waiting = vec![batch];
    while let Some(batch) = waiting.pop() {
        let rows = batch.num_rows();
        let size: usize = batch.columns().iter().map(|column| wire_size(column)).sum();
        if rows == 0 {
            continue;
        }
        if rows == 1 || size <= limit {
            pieces.push(batch);
            continue;
        }
        // Even rows need one cut; uneven ones are looked at again.
        let per_piece = (rows / size.div_ceil(limit)).max(1);
        let parts = (0..rows)
            .step_by(per_piece)
            .map(|start| batch.slice(start, per_piece.min(rows - start)));
        waiting.extend(parts);
    }
    pieces
}

/// How many bytes an array takes in a message, of which it may be a small slice of what it holds in memory.
fn wire_size(array: &dyn Array) -> usize {
    let rows = array.len();
    let validity = if array.nulls().is_some() { rows.div_ceil(8) } else { 0 };
    validity
        + match array.data_type() {
            DataType::Null => 0,
            DataType::Boolean => rows.div_ceil(8),
            DataType::Utf8 => variable(array.as_string::<i32>().value_offsets()),
            DataType::LargeUtf8 => variable(array.as_string::<i64>().value_offsets()),
            DataType::Binary => variable(array.as_binary::<i32>().value_offsets()),
            DataType::LargeBinary => variable(array.as_binary::<i64>().value_offsets()),
            DataType::Utf8View => views(array.as_string_view().views()),
            DataType::BinaryView => views(array.as_binary_view().views()),
            DataType::FixedSizeBinary(width) => rows * usize::try_from(*width).unwrap_or(0),
            DataType::List(_) => nested(array.as_list::<i32>().value_offsets(), array.as_list::<i32>().values()),
            DataType::LargeList(_) => nested(array.as_list::<i64>().value_offsets(), array.as_list::<i64>().values()),
            DataType::Map(_, _) => nested(array.as_map().value_offsets(), array.as_map().entries()),
            DataType::FixedSizeList(_, _) => wire_size(array.as_fixed_size_list().values()),
            DataType::Struct(_) => array.as_struct().columns().iter().map(|column| wire_size(column)).sum(),
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                average(dictionary.values(), rows)
            }
            other => match other.primitive_width() {
                Some(width) => rows * width,
                // Unions, list views and run ends: what they hold in all, spread evenly over their rows.
                None => {
                    let data = array.to_data();
                    data.child_data()
                        .iter()
                        .map(|child| average(&make_array(child.clone()), rows))
                        .sum::<usize>()
                        + rows * 8
                }
            },
        }
}

fn variable<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    size_of_val(offsets) + span(offsets).1
}

/// Each view names the length of its value in its lowest 32 bits.
fn views(views: &[u128]) -> usize {
    views
        .iter()
        .map(|view| 4 + (view & u128::from(u32::MAX)) as usize)
        .sum()
}

fn nested<O: OffsetSizeTrait>(offsets: &[O], values: &dyn Array) -> usize {
    let (start, length) = span(offsets);
    size_of_val(offsets) + wire_size(&values.slice(start, length))
}

/// Where the values between the first and the last offset start, and how many there are.
fn span<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => (first.as_usize(), last.as_usize() - first.as_usize()),
        _ => (0, 0),
    }
}

/// The size of `rows` values of average size among `values`.
fn average(values: &dyn Array, rows: usize) -> usize {
    if values.is_empty() {
        0
    } else {
        (wire_size(values) / values.len() + 1) * rows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::{
        array::{
            BinaryViewArray, DictionaryArray, Int32Array, LargeListArray, ListArray, StringArray, StringViewArray,
            StructArray,
        },
        datatypes::{Int16Type, Int32Type},
    };
    use arrow_flight::{decode::FlightRecordBatchStream, error::FlightError};
    use futures::TryStreamExt;

    use super::*;

    async fn round_trip(schema: SchemaRef, batches: Vec<RecordBatch>) -> (SchemaRef, Vec<RecordBatch>, Vec<usize>) {
        let messages: Vec<FlightData> = encode(&schema, futures::stream::iter(batches.into_iter().map(Ok)))
            .try_collect()
            .await
            .unwrap();
        let sizes = messages
            .iter()
            .map(|message| message.data_body.len() + message.data_header.len())
            .collect();
        let messages = futures::stream::iter(messages.into_iter().map(Ok::<_, FlightError>));
        let mut stream = FlightRecordBatchStream::new_from_flight_data(messages);
        let mut found = Vec::new();
        while let Some(batch) = stream.try_next().await.unwrap() {
            found.push(batch);
        }
        (Arc::clone(stream.schema().unwrap()), found, sizes)
    }

    #[tokio::test]
    async fn newer_layouts_arrive_plain_with_the_schema_that_was_announced() {
        let words: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some("a word longer than twelve bytes"),
            None,
        ]));
        let bytes: ArrayRef = Arc::new(BinaryViewArray::from(vec![Some(b"x".as_slice()), Some(b"y")]));
        let coded: ArrayRef = Arc::new(vec!["low", "high"].into_iter().collect::<DictionaryArray<Int16Type>>());
        let large: ArrayRef = Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1)]),
            None,
        ]));
        let inside: ArrayRef = Arc::new(StructArray::from(vec![(
            Arc::new(Field::new("coded", coded.data_type().clone(), true)),
            Arc::clone(&coded),
        )]));
        let note = HashMap::from([("note".to_owned(), "kept".to_owned())]);
        let columns = [
            ("words", words),
            ("bytes", bytes),
            ("coded", coded),
            ("large", large),
            ("inside", inside),
        ];
        let fields: Vec<_> = columns
            .iter()
            .map(|(name, column)| Field::new(*name, column.data_type().clone(), true).with_metadata(note.clone()))
            .collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, note));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();

        let (found, batches, _) = round_trip(Arc::clone(&schema), vec![batch]).await;
        assert_eq!(found, wire_schema(&schema));
        let types: Vec<_> = found
            .fields()
            .iter()
            .take(3)
            .map(|field| field.data_type().clone())
            .collect();
        assert_eq!(types, [DataType::Utf8, DataType::Binary, DataType::Utf8]);
        assert!(matches!(found.field(3).data_type(), DataType::LargeList(_)));
        assert_eq!(
            batches[0].column(0).as_string::<i32>().value(0),
            "a word longer than twelve bytes"
        );
        assert_eq!(
            batches[0].column(4).as_struct().column(0).as_string::<i32>().value(1),
            "high"
        );
    }

    #[tokio::test]
    async fn messages_stay_small_even_for_slices_and_uneven_rows() {
        // One row in a thousand is large, and each batch is a slice of a larger one.
        let words: StringArray = (0..20_000)
            .map(|row| Some("x".repeat(if row % 1000 == 0 { 1_500_000 } else { 10 })))
            .collect();
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>((0..20_000).map(|row| Some(vec![Some(row); 50])));
        let batch =
            RecordBatch::try_from_iter([("words", Arc::new(words) as ArrayRef), ("lists", Arc::new(lists))]).unwrap();
        let slices = vec![batch.slice(0, 9_000), batch.slice(9_000, 11_000)];

        let (_, found, sizes) = round_trip(batch.schema(), slices).await;
        assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 20_000);
        assert_eq!(arrow::compute::concat_batches(&batch.schema(), &found).unwrap(), batch);
        assert!(sizes.iter().all(|size| *size < 5 << 19), "{sizes:?}");
        assert!(sizes.len() < 60, "{} messages", sizes.len());
    }

    #[tokio::test]
    async fn small_slices_of_large_arrays_are_one_message() {
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(0..4_000_000));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let (_, found, sizes) = round_trip(batch.schema(), vec![batch.slice(3_000_000, 100)]).await;
        assert_eq!((found.len(), sizes.len()), (1, 2));
    }

    #[tokio::test]
    async fn an_empty_result_still_has_its_schema_and_an_error_ends_the_stream() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
        let (found, batches, _) =
            round_trip(Arc::clone(&schema), vec![RecordBatch::new_empty(Arc::clone(&schema))]).await;
        assert_eq!((found, batches.len()), (Arc::clone(&schema), 0));

        let failing = futures::stream::iter([
            Err(DataFusionError::from(crate::error::QueryError::new(
                crate::error::Code::DivisionByZero,
                "division by zero",
            ))),
            Ok(RecordBatch::new_empty(Arc::clone(&schema))),
        ]);
        let items: Vec<_> = encode(&schema, failing).collect().await;
        assert_eq!(items.len(), 2);
        assert_eq!(items[1].as_ref().unwrap_err().message(), "division by zero");
    }
}

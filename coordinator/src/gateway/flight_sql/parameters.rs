//! Values that clients bind to the parameters of a prepared statement.
//!
//! In: the record batches of a DoPut, one column for each parameter in the order `$1`, `$2`, ... and one row for each execution.
//! Out: rows of scalar values. Deliberately absent: types; the planner converts values to what the statement needs.

use arrow::array::RecordBatch;
use arrow_flight::{FlightData, decode::FlightRecordBatchStream, error::FlightError};
use datafusion::scalar::ScalarValue;
use futures::{Stream, TryStreamExt};
use tonic::Status;

use super::status::{internal, invalid};

/// How much one DoPut may bind: parameters are values of a statement, not a way to load tables.
const LIMIT_BYTES: usize = 64 << 20;

/// Reads every row of a DoPut.
pub(super) async fn read_rows(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<Vec<Vec<ScalarValue>>, Status> {
    let messages = messages.map_err(|status| FlightError::Tonic(Box::new(status)));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    let (mut rows, mut size) = (Vec::new(), 0);
    while let Some(batch) = batches.try_next().await.map_err(unreadable)? {
        size += batch.get_array_memory_size();
        if size > LIMIT_BYTES {
            let limit = LIMIT_BYTES >> 20;
            return Err(invalid(format!(
                "the bound parameters are larger than {limit} MiB; bind fewer rows at a time"
            )));
        }
        rows_of(&batch, &mut rows)?;
    }
    Ok(rows)
}

/// Appends the rows of a batch. A batch without columns binds nothing: drivers send one when a statement has no parameters.
fn rows_of(batch: &RecordBatch, rows: &mut Vec<Vec<ScalarValue>>) -> Result<(), Status> {
    if batch.num_columns() == 0 {
        return Ok(());
    }
    for row in 0..batch.num_rows() {
        let values = batch
            .columns()
            .iter()
            .map(|column| ScalarValue::try_from_array(column, row).map(plain));
        let values: Result<Vec<_>, _> = values.collect();
        rows.push(values.map_err(|error| internal("a bound parameter cannot be read", &error))?);
    }
    Ok(())
}

/// A value without the encoding of the column it came in.
fn plain(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Dictionary(_, inner) => plain(*inner),
        ScalarValue::RunEndEncoded(_, _, inner) => plain(*inner),
        other => other,
    }
}

fn unreadable(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => invalid(format!("the bound parameters are no valid Arrow data: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, DictionaryArray, Int64Array, NullArray, RecordBatchOptions, StringArray},
        datatypes::{Int8Type, Schema},
    };
    use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};

    use super::*;

    async fn round_trip(batches: Vec<RecordBatch>) -> Result<Vec<Vec<ScalarValue>>, Status> {
        let encoder = FlightDataEncoderBuilder::new().with_dictionary_handling(DictionaryHandling::Resend);
        let messages = encoder.build(futures::stream::iter(batches.into_iter().map(Ok)));
        read_rows(messages.map_err(|error| Status::internal(error.to_string()))).await
    }

    #[tokio::test]
    async fn rows_keep_their_order_types_and_nulls() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        let words: ArrayRef = Arc::new(
            vec!["seven", "nothing"]
                .into_iter()
                .collect::<DictionaryArray<Int8Type>>(),
        );
        let nothing: ArrayRef = Arc::new(NullArray::new(2));
        let batch = RecordBatch::try_from_iter([("0", numbers), ("1", words), ("2", nothing)]).unwrap();
        let rows = round_trip(vec![batch.clone(), batch.slice(1, 1)]).await.unwrap();
        let second = vec![
            ScalarValue::Int64(None),
            ScalarValue::Utf8(Some("nothing".to_owned())),
            ScalarValue::Null,
        ];
        assert_eq!(
            rows,
            [
                vec![
                    ScalarValue::Int64(Some(7)),
                    ScalarValue::Utf8(Some("seven".to_owned())),
                    ScalarValue::Null
                ],
                second.clone(),
                second,
            ]
        );
    }

    #[tokio::test]
    async fn no_columns_and_no_batches_bind_nothing() {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        assert!(round_trip(vec![empty]).await.unwrap().is_empty());
        assert!(round_trip(vec![]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn too_much_and_rubbish_are_refused() {
        let large: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(LIMIT_BYTES + 1)]));
        let refused = round_trip(vec![RecordBatch::try_from_iter([("0", large)]).unwrap()])
            .await
            .unwrap_err();
        assert!(refused.message().contains("64 MiB"), "{}", refused.message());

        let rubbish = FlightData::new().with_data_header("rubbish");
        let refused = read_rows(futures::stream::iter([Ok(rubbish)])).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}

//! Rows as rows of the table that they are written to.
//!
//! In: batches of a query, and the columns that they become. Out: batches of the table's types. Numbers widen and narrow if they fit, texts
//! become dates and times if they are some; what would have to be guessed is refused before anything runs. No error carries a value.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
    compute::{CastOptions, can_cast_types, cast_with_options},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use crate::{
    error::{Code, QueryError, Result},
    system::sql_type,
};

/// Checks that columns of these types may be written to those of a table, one by one.
pub(super) fn expect_assignable<'a>(from: impl Iterator<Item = &'a DataType>, to: &SchemaRef) -> Result<()> {
    for (from, field) in from.zip(to.fields()) {
        if !is_assignable(from, field.data_type()) {
            let message = format!(
                "column `{}` has type {}, and what is written to it has type {}",
                field.name(),
                sql_type(field.data_type()),
                sql_type(from)
            );
            return Err(QueryError::new(Code::TypeMismatch, message).with_hint("CAST the value to the column's type"));
        }
    }
    Ok(())
}

fn is_assignable(from: &DataType, to: &DataType) -> bool {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_bytes = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
        )
    };
    match (from, to) {
        (from, to) if from == to => true,
        (DataType::Null, _) => true,
        (DataType::Dictionary(_, value), to) => is_assignable(value, to),
        (from, to) if is_text(from) && is_text(to) || is_bytes(from) && is_bytes(to) => true,
        (from, to) if from.is_integer() && to.is_numeric() => true,
        (from, to) if from.is_numeric() && (to.is_floating() || to.is_decimal()) => true,
        // A time is written as a text, as there are no others in SQL.
        (from, to) if is_text(from) => to.is_temporal() && !matches!(to, DataType::Duration(_)) || to.is_decimal(),
        (DataType::Date32 | DataType::Date64, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)) => true,
        (DataType::Timestamp(_, from), DataType::Timestamp(_, to)) => from.is_some() == to.is_some(),
        (DataType::Time32(_) | DataType::Time64(_), DataType::Time32(_) | DataType::Time64(_)) => true,
        (DataType::Interval(_), DataType::Interval(_)) => can_cast_types(from, to),
        (
            DataType::List(from) | DataType::LargeList(from) | DataType::FixedSizeList(from, _),
            DataType::List(to) | DataType::LargeList(to) | DataType::FixedSizeList(to, _),
        ) => is_assignable(from.data_type(), to.data_type()),
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.len() == to.len()
                && from
                    .iter()
                    .zip(to)
                    .all(|(from, to)| from.name() == to.name() && is_assignable(from.data_type(), to.data_type()))
        }
        (DataType::Map(from, _), DataType::Map(to, _)) => {
            from.data_type() == to.data_type() || can_cast_types(from.data_type(), to.data_type())
        }
        _ => false,
    }
}

/// A batch with the types and names of `to`; its columns are those of `batch`, one by one.
pub(super) fn fit(batch: &RecordBatch, to: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(to.fields());
    let columns: Result<Vec<ArrayRef>> = columns.map(|(column, field)| fit_column(column, field)).collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(to), columns?, &rows)?)
}

pub(super) fn fit_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if !field.is_nullable() && column.logical_null_count() > 0 {
        let message = format!("column `{}` does not take NULL; nothing was written", field.name());
        return Err(QueryError::new(Code::ConstraintViolation, message));
    }
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    // Arrow's default makes NULL of what does not fit.
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(column, field.data_type(), &options).map_err(|_| {
        let (name, data_type) = (field.name(), sql_type(field.data_type()));
        let message = format!("a value for column `{name}` is no {data_type}, or does not fit it; nothing was written");
        QueryError::new(Code::InvalidCastArgument, message)
    })
}

/// The batch with NULL in the columns of `all` that it has not got, in the order of `all`.
pub(super) fn complete(batch: &RecordBatch, all: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef> {
        match batch.column_by_name(field.name()) {
            Some(column) => Ok(Arc::clone(column)),
            None => fit_column(&new_null_array(field.data_type(), batch.num_rows()), field),
        }
    };
    let columns: Result<Vec<ArrayRef>> = all.fields().iter().map(column).collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(all), columns?, &rows)?)
}

/// The named columns of a table, in the order of the names; all of them when there are none.
pub(super) fn named(table: &SchemaRef, names: &[String]) -> Result<SchemaRef> {
    if names.is_empty() {
        return Ok(Arc::clone(table));
    }
    let field = |name: &String| {
        table.field_with_name(name).cloned().map_err(|_| {
            let error = QueryError::new(Code::ColumnNotFound, format!("column `{name}` does not exist"));
            error.suggest(name, table.fields().iter().map(|field| field.name().as_str()))
        })
    };
    let fields: Result<Vec<Field>> = names.iter().map(field).collect();
    Ok(Arc::new(Schema::new(fields?)))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{AsArray, Int64Array, StringArray},
        datatypes::{Date32Type, Int8Type},
    };

    use super::*;

    fn column(data_type: DataType) -> Field {
        Field::new("x", data_type, false)
    }

    #[test]
    fn what_does_not_fit_is_an_error_without_the_value() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 300]));
        let error = fit_column(&numbers, &column(DataType::Int8)).unwrap_err();
        assert_eq!(error.code, Code::InvalidCastArgument);
        assert!(
            error.message.contains("`x`") && !error.message.contains("300"),
            "{error:?}"
        );
        let small = fit_column(&numbers.slice(0, 1), &column(DataType::Int8)).unwrap();
        assert_eq!(small.as_primitive::<Int8Type>().value(0), 1);
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["1970-01-03", "secret"]));
        let error = fit_column(&texts, &column(DataType::Date32)).unwrap_err();
        assert!(!error.message.contains("secret"), "{error:?}");
        let day = fit_column(&texts.slice(0, 1), &column(DataType::Date32)).unwrap();
        assert_eq!(day.as_primitive::<Date32Type>().value(0), 2);
        let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        assert_eq!(
            fit_column(&nulls, &column(DataType::Int64)).unwrap_err().code,
            Code::ConstraintViolation
        );
    }

    #[test]
    fn nothing_is_guessed() {
        for (from, to, expected) in [
            (DataType::Int64, DataType::Int8, true),
            (DataType::Float64, DataType::Decimal128(10, 2), true),
            (DataType::Float64, DataType::Int64, false),
            (DataType::Utf8, DataType::Int64, false),
            (DataType::Utf8, DataType::Date32, true),
            (DataType::Int64, DataType::Utf8, false),
            (DataType::Int64, DataType::Boolean, false),
            (DataType::Date32, DataType::Utf8View, false),
            (DataType::Null, DataType::Boolean, true),
        ] {
            assert_eq!(is_assignable(&from, &to), expected, "{from} to {to}");
        }
    }
}

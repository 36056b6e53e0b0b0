//! Partition columns: the `key=value` folders on the way to a file.
//!
//! In: folder names, and the filters of a query. Out: column types, values, and which files a query need not read. A
//! filter is decided here only if it uses nothing but partition columns; it is then decided exactly.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_expr::create_physical_expr;

/// The folder that Hive, Spark and Trino write for NULL.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// One `key=value` folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionKey {
    pub(super) key: String,
    /// `None` for NULL.
    pub(super) value: Option<String>,
}

/// The partition that a folder name stands for, if any.
pub(super) fn partition_of(folder: &str) -> Option<PartitionKey> {
    let (key, value) = folder.split_once('=').filter(|(key, _)| !key.is_empty())?;
    let value = Some(value).filter(|value| *value != NULL_FOLDER).map(unescape);
    Some(PartitionKey {
        key: unescape(key),
        value,
    })
}

/// Undoes `%3A`; a name that does not decode to text is taken as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            tail.get(2..).unwrap_or_default()
        } else {
            tail
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// The partition columns of a dataset with the values of each of its files.
#[derive(Debug, Clone)]
pub(super) struct Partitions {
    pub(super) fields: Vec<FieldRef>,
    /// One row for each file.
    values: RecordBatch,
}

impl Partitions {
    /// Finds the types: whole numbers or dates if all values are, else text, as Spark does.
    pub(super) fn of(files: &[&[PartitionKey]]) -> Result<Partitions> {
        let keys: &[PartitionKey] = files.first().copied().unwrap_or_default();
        let mut fields: Vec<FieldRef> = Vec::with_capacity(keys.len());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            let values: Vec<Option<&str>> = files
                .iter()
                .map(|file| file.get(at).and_then(|partition| partition.value.as_deref()))
                .collect();
            let data_type = type_of(values.iter().copied().flatten());
            let text: ArrayRef = Arc::new(values.iter().copied().collect::<StringArray>());
            let strict = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            columns.push(cast_with_options(&text, &data_type, &strict)?);
            fields.push(Arc::new(Field::new(&key.key, data_type, values.contains(&None))));
        }
        let schema = Arc::new(Schema::new(fields.clone()));
        let values = if columns.is_empty() {
            RecordBatch::new_empty(schema)
        } else {
            RecordBatch::try_new(schema, columns)?
        };
        Ok(Partitions { fields, values })
    }

    /// The values of one file.
    pub(super) fn values_of(&self, file: usize) -> Result<Vec<ScalarValue>> {
        self.values
            .columns()
            .iter()
            .map(|column| ScalarValue::try_from_array(column, file))
            .collect()
    }

    /// Whether a filter can be decided by looking at the partition columns alone.
    pub(super) fn decides(&self, filter: &Expr) -> bool {
        if self.fields.is_empty() {
            return false;
        }
        let mut decides = true;
        let walked = filter.apply(|expr| {
            decides = self.is_constant_but_for_partitions(expr);
            Ok(if decides {
                TreeNodeRecursion::Continue
            } else {
                TreeNodeRecursion::Stop
            })
        });
        walked.is_ok() && decides
    }

    fn is_constant_but_for_partitions(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Column(column) => self.fields.iter().any(|field| field.name() == &column.name),
            Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
            Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::IsNotNull(_)
            | Expr::IsNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::BinaryExpr(_)
            | Expr::Between(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::InList(_)
            | Expr::Case(_) => true,
            _ => false,
        }
    }

    /// The files whose rows may pass all of `filters`, each of which [`Partitions::decides`]. `None` for all files.
    pub(super) fn select(&self, filters: &[Expr]) -> Result<Option<Vec<usize>>> {
        let Some(filter) = conjunction(
            filters
                .iter()
                .map(|filter| unqualified(filter.clone()))
                .collect::<Result<Vec<_>>>()?,
        ) else {
            return Ok(None);
        };
        let schema = DFSchema::try_from(self.values.schema())?;
        let filter = create_physical_expr(
            &filter,
            &schema,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )?;
        let chosen = filter.evaluate(&self.values)?.into_array(self.values.num_rows())?;
        let chosen: &BooleanArray = as_boolean_array(&chosen)?;
        // NULL does not pass a filter.
        Ok(Some(
            (0..chosen.len())
                .filter(|file| chosen.is_valid(*file) && chosen.value(*file))
                .collect(),
        ))
    }
}

/// The same expression with columns that name no table.
fn unqualified(filter: Expr) -> Result<Expr> {
    let transformed = filter.transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    })?;
    Ok(transformed.data)
}

fn type_of<'a>(values: impl Iterator<Item = &'a str> + Clone) -> DataType {
    let mut known = values.clone().peekable();
    if known.peek().is_none() {
        return DataType::Utf8;
    }
    if known.all(is_whole_number) {
        return DataType::Int64;
    }
    let mut values = values;
    if values.all(is_date) {
        DataType::Date32
    } else {
        DataType::Utf8
    }
}

fn is_whole_number(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    digits.bytes().all(|byte| byte.is_ascii_digit()) && value.parse::<i64>().is_ok()
}

fn is_date(value: &str) -> bool {
    value.len() == 10 && chrono::NaiveDate::parse_from_str(value, "%Y-%m-%d").is_ok()
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn partitions(values: &[&str]) -> Partitions {
        let files: Vec<Vec<PartitionKey>> = values
            .iter()
            .map(|folder| partition_of(folder).into_iter().collect())
            .collect();
        let files: Vec<&[PartitionKey]> = files.iter().map(Vec::as_slice).collect();
        Partitions::of(&files).unwrap()
    }

    #[test]
    fn types_follow_the_values() {
        let check = |values: &[&str], data_type: DataType, nullable: bool| {
            let found = partitions(values);
            let field = found.fields.first().unwrap();
            assert_eq!(
                (field.data_type(), field.is_nullable()),
                (&data_type, nullable),
                "{values:?}"
            );
        };
        check(&["month=01", "month=12"], DataType::Int64, false);
        check(&["day=2024-02-29", "day=2023-01-01"], DataType::Date32, false);
        check(&["day=2024-02-29", "day=2023-02-29"], DataType::Utf8, false);
        check(&["city=Oslo", "city=__HIVE_DEFAULT_PARTITION__"], DataType::Utf8, true);
        check(&["n=1", "n=__HIVE_DEFAULT_PARTITION__"], DataType::Int64, true);
    }

    #[test]
    fn escapes_are_undone() {
        let value = |folder: &str| partition_of(folder).and_then(|partition| partition.value);
        assert_eq!(value("t=10%3A30").as_deref(), Some("10:30"));
        assert_eq!(value("t=100%").as_deref(), Some("100%"));
        assert_eq!(value("t=%ff").as_deref(), Some("%ff"));
        assert_eq!(value("t=a=b").as_deref(), Some("a=b"));
        assert_eq!(partition_of("=b"), None);
    }

    #[test]
    fn null_passes_only_what_asks_for_it() {
        let found = partitions(&["n=1", "n=2", "n=__HIVE_DEFAULT_PARTITION__"]);
        assert_eq!(found.select(&[col("n").gt(lit(1_i64))]).unwrap(), Some(vec![1]));
        assert_eq!(found.select(&[col("n").is_null()]).unwrap(), Some(vec![2]));
        assert_eq!(found.select(&[]).unwrap(), None);
        assert!(found.decides(&col("n").eq(lit(1_i64))));
        assert!(!found.decides(&col("n").eq(col("m"))));
    }
}

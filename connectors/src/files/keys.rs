//! Whether whole numbers are among some keys, for many numbers of which few are.
//!
//! In: a list of a join's keys. Out: the same condition, which looks at a few bits first: these fit into the processor's first cache, and most rows need no more. Where files
//! are in the order of the keys, as tables often are, it need not look at most rows at all: no key lies between the least and the greatest of some rows. To a row without a key a
//! list with NULL in it says NULL, and this says false: as a condition that is the same.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::datatypes::{DataType, Date32Type, FieldRef, Int8Type, Int16Type, Int32Type, Int64Type, Schema};
use datafusion::common::{HashSet, Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{InListExpr, Literal};

/// So many bits are there for each key; one of 16 numbers that are no key finds one all the same, and is looked for among the keys.
const BITS_FOR_A_KEY: usize = 16;
/// So many rows are looked at together.
const ROWS_TOGETHER: usize = 64;
/// When so many times in a batch some key lay between those of rows, its rows are in no such order.
const MOST_VAIN: usize = 8;
/// 2^64 by the golden ratio: multiplied with it numbers that follow each other are far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A list of whole numbers, or of dates.
#[derive(Debug)]
pub(super) struct Keys {
    list: Arc<dyn PhysicalExpr>,
    keys: HashSet<i64>,
    /// The same, from the least to the greatest.
    sorted: Vec<i64>,
    bits: Vec<u64>,
    /// What leaves of a spread number its place among the bits.
    shift: u32,
}

impl Keys {
    /// The condition; `None` where it is no list of whole numbers.
    pub(super) fn of(list: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let inside = list.downcast_ref::<InListExpr>().filter(|list| !list.negated())?;
        let values = inside.list().iter().map(|value| value.downcast_ref::<Literal>());
        // No row is NULL's equal.
        let values = values.filter(|value| !value.is_some_and(|literal| literal.value().is_null()));
        let keys: Option<HashSet<i64>> = values
            .map(|value| value.and_then(|literal| whole(literal.value())))
            .collect();
        let keys = keys?;
        let mut sorted: Vec<i64> = keys.iter().copied().collect();
        sorted.sort_unstable();
        let size = (keys.len() * BITS_FOR_A_KEY).next_power_of_two().max(64);
        let mut found = Keys {
            list: Arc::clone(list),
            bits: vec![0; size / 64],
            shift: 64 - size.ilog2(),
            sorted,
            keys: HashSet::new(),
        };
        for key in &keys {
            let (word, bit) = found.place(*key);
            if let Some(word) = found.bits.get_mut(word) {
                *word |= bit;
            }
        }
        found.keys = keys;
        Some(Arc::new(found))
    }

    fn place(&self, number: i64) -> (usize, u64) {
        let place = number.cast_unsigned().wrapping_mul(SPREAD) >> self.shift;
        ((place / 64) as usize, 1 << (place % 64))
    }

    /// Which of some numbers are keys, a bit for each: at most [`ROWS_TOGETHER`].
    fn among<T: Copy + Into<i64>>(&self, numbers: &[T]) -> u64 {
        let mut found = 0;
        for (at, number) in numbers.iter().enumerate() {
            let (word, bit) = self.place((*number).into());
            let is_there = self.bits.get(word).is_some_and(|word| word & bit != 0);
            found |= u64::from(is_there) << at;
        }
        let mut left = found;
        while left != 0 {
            let at = left.trailing_zeros();
            left &= left - 1;
            if !(numbers.get(at as usize)).is_some_and(|number| self.keys.contains(&(*number).into())) {
                found &= !(1 << at);
            }
        }
        found
    }

    /// Whether a key may be one of some numbers.
    fn may_have<T: Copy + Into<i64>>(&self, numbers: &[T]) -> bool {
        let (mut least, mut greatest) = (i64::MAX, i64::MIN);
        for number in numbers {
            let number = (*number).into();
            least = least.min(number);
            greatest = greatest.max(number);
        }
        let next = self.sorted.partition_point(|key| *key < least);
        self.sorted.get(next).is_some_and(|key| *key <= greatest)
    }

    fn found<T: ArrowPrimitiveType<Native: Into<i64>>>(&self, numbers: &PrimitiveArray<T>) -> ColumnarValue {
        let mut vain = 0;
        let words = numbers.values().chunks(ROWS_TOGETHER).map(|some| {
            if vain < MOST_VAIN {
                if !self.may_have(some) {
                    return 0;
                }
                vain += 1;
            }
            self.among(some)
        });
        let words: Buffer = words.collect::<Vec<u64>>().into();
        let found = BooleanBuffer::new(words, 0, numbers.len());
        ColumnarValue::Array(Arc::new(BooleanArray::new(found, numbers.nulls().cloned())))
    }
}

/// A whole number, or the days of a date.
pub(super) fn whole(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int8(Some(value)) => Some(i64::from(*value)),
        ScalarValue::Int16(Some(value)) => Some(i64::from(*value)),
        ScalarValue::Int32(Some(value)) | ScalarValue::Date32(Some(value)) => Some(i64::from(*value)),
        ScalarValue::Int64(Some(value)) => Some(*value),
        _ => None,
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.list.eq(&other.list)
    }
}

impl Eq for Keys {}

impl Hash for Keys {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.list.hash(state);
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.fmt(f)
    }
}

impl PhysicalExpr for Keys {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.list.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.list.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.list.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let Some(inside) = self.list.downcast_ref::<InListExpr>() else {
            return self.list.evaluate(batch);
        };
        let numbers = inside.expr().evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(match numbers.data_type() {
            DataType::Int8 => self.found(numbers.as_primitive::<Int8Type>()),
            DataType::Int16 => self.found(numbers.as_primitive::<Int16Type>()),
            DataType::Int32 => self.found(numbers.as_primitive::<Int32Type>()),
            DataType::Int64 => self.found(numbers.as_primitive::<Int64Type>()),
            DataType::Date32 => self.found(numbers.as_primitive::<Date32Type>()),
            _ => return self.list.evaluate(batch),
        })
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.list]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let Some(list) = children.into_iter().next() else {
            return Ok(self);
        };
        Ok(Keys::of(&list).unwrap_or(list))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Date32Array, Int8Array, Int16Array, Int32Array, Int64Array, StringArray};
    use arrow::compute::prep_null_mask_filter;
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::{col, in_list, lit};
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    /// Which rows both keep: what is NULL is not.
    fn kept(array: ArrayRef, keys: &[ScalarValue]) -> [BooleanArray; 2] {
        let schema = Arc::new(Schema::new(vec![Field::new("a", array.data_type().clone(), true)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
        let keys = keys.iter().cloned().map(lit).collect();
        let list = in_list(col("a", &schema).unwrap(), keys, &false, &schema).unwrap();
        let keys = Keys::of(&list).unwrap();
        [list, keys].map(|condition| {
            let found = condition
                .evaluate(&batch)
                .unwrap()
                .into_array(batch.num_rows())
                .unwrap();
            let found = found.as_boolean().clone();
            if found.null_count() > 0 {
                prep_null_mask_filter(&found)
            } else {
                found
            }
        })
    }

    proptest! {
        #[test]
        fn they_are_found_as_the_list_finds_them(
            mut numbers in vec(option::of(prop_oneof![any::<i64>(), -40_i64..40, -2_000_i64..2_000]), 0..1_500),
            keys in vec(option::of(prop_oneof![any::<i64>(), -40_i64..40]), 1..60),
            in_order in any::<bool>(),
        ) {
            if in_order {
                numbers.sort_unstable();
            }
            macro_rules! agree {
                ($array:ident, $scalar:ident, $native:ty) => {{
                    // Numbers that are too large for the type are others.
                    let numbers: $array = numbers.iter().map(|number| number.map(|number| number as $native)).collect();
                    let keys: Vec<ScalarValue> = (keys.iter())
                        .map(|key| ScalarValue::$scalar(key.map(|key| key as $native)))
                        .collect();
                    let [expected, found] = kept(Arc::new(numbers), &keys);
                    prop_assert_eq!(expected, found);
                }};
            }
            agree!(Int8Array, Int8, i8);
            agree!(Int16Array, Int16, i16);
            agree!(Int32Array, Int32, i32);
            agree!(Int64Array, Int64, i64);
            agree!(Date32Array, Date32, i32);
        }
    }

    #[test]
    fn what_is_no_list_of_whole_numbers_stays_as_it_is() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Utf8, true),
            Field::new("b", DataType::Int64, true),
        ]);
        let list = |column: &str, keys: Vec<Arc<dyn PhysicalExpr>>, negated: bool| {
            in_list(col(column, &schema).unwrap(), keys, &negated, &schema).unwrap()
        };
        assert!(Keys::of(&list("a", vec![lit("x")], false)).is_none());
        assert!(Keys::of(&list("b", vec![lit(1_i64)], true)).is_none());
        assert!(Keys::of(&lit(true)).is_none());
        // A file may have the column in another type.
        let numbers = Keys::of(&list("b", vec![lit(1_i64)], false)).unwrap();
        let texts = list("a", vec![lit("1")], false);
        let now = numbers.with_new_children(vec![texts]).unwrap();
        let batch = RecordBatch::try_new(
            Arc::new(schema.clone()),
            vec![
                Arc::new(StringArray::from(vec!["1", "2"])),
                Arc::new(Int64Array::from(vec![7, 1])),
            ],
        );
        let found = now.evaluate(&batch.unwrap()).unwrap().into_array(2).unwrap();
        assert_eq!(found.as_boolean(), &BooleanArray::from(vec![true, false]));
    }
}

//! Aggregates of the different ones of some whole numbers.
//!
//! In: what becomes of their sum, which has 128 bits, and of how many they are. Out: DataFusion's accumulator, of which rows can be taken back, as windows do.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{HashMap, Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;

/// A type of whole numbers.
pub(crate) trait Whole: ArrowPrimitiveType<Native: Into<i128> + Eq + Hash> + Send + Sync {}

impl<T: ArrowPrimitiveType<Native: Into<i128> + Eq + Hash> + Send + Sync> Whole for T {}

/// The number with the most room.
pub(crate) fn wide<T: Whole>(number: &T::Native) -> i128 {
    (*number).into()
}

/// The different numbers, with how often each is there.
pub(crate) struct Different<T: ArrowPrimitiveType, F> {
    rows: HashMap<T::Native, u64>,
    /// The sum of the different numbers, which a window asks for at each of its rows.
    sum: i128,
    finish: F,
}

impl<T: ArrowPrimitiveType, F: Fn(i128, u64) -> Result<ScalarValue>> Different<T, F> {
    /// The result is made of the sum and the count.
    pub(crate) fn new(finish: F) -> Self {
        let (rows, sum) = (HashMap::new(), 0);
        Self { rows, sum, finish }
    }
}

impl<T: ArrowPrimitiveType, F> fmt::Debug for Different<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Different")
            .field("numbers", &self.rows.len())
            .finish_non_exhaustive()
    }
}

fn numbers<T: ArrowPrimitiveType>(values: &dyn Array) -> Result<&PrimitiveArray<T>> {
    match values.as_primitive_opt::<T>() {
        Some(numbers) => Ok(numbers),
        None => internal_err!("an aggregate of different {} was given something else", T::DATA_TYPE),
    }
}

impl<T: Whole, F: Fn(i128, u64) -> Result<ScalarValue> + Send + Sync + 'static> Accumulator for Different<T, F> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for values in values {
            for number in numbers::<T>(values)?.iter().flatten() {
                let rows = self.rows.entry(number).or_default();
                if *rows == 0 {
                    self.sum += wide::<T>(&number);
                }
                *rows += 1;
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for values in values {
            for number in numbers::<T>(values)?.iter().flatten() {
                match self.rows.get_mut(&number) {
                    Some(rows) if *rows > 1 => *rows -= 1,
                    Some(_) => {
                        self.rows.remove(&number);
                        self.sum -= wide::<T>(&number);
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states.first().and_then(|lists| lists.as_list_opt::<i32>()) else {
            return internal_err!("an aggregate of different numbers was given something else than lists");
        };
        for numbers in lists.iter().flatten() {
            self.update_batch(&[numbers])?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        (self.finish)(self.sum, self.rows.len() as u64)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let numbers = PrimitiveArray::<T>::from_iter_values(self.rows.keys().copied());
        let list = SingleRowListArrayBuilder::new(Arc::new(numbers)).build_list_scalar();
        Ok(vec![list])
    }

    /// Tables have an eighth more places than they may have numbers, and a byte for each place.
    fn size(&self) -> usize {
        size_of_val(self) + self.rows.capacity() * 8 / 7 * (size_of::<(T::Native, u64)>() + 1)
    }
}

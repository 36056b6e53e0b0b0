//! Aggregates of groups: one value for each, which the group's values are folded into.
//!
//! In: how to fold. Out: DataFusion's accumulator of all groups; a group without a value has NULL.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

fn primitive<T: ArrowPrimitiveType>(values: &[ArrayRef]) -> Result<&PrimitiveArray<T>> {
    match values.first().and_then(|values| values.as_primitive_opt::<T>()) {
        Some(values) => Ok(values),
        None => internal_err!("an aggregate of {} was given something else", T::DATA_TYPE),
    }
}

/// One value for each group, which its values are folded into.
pub(crate) struct Folded<T: ArrowPrimitiveType, F> {
    start: T::Native,
    fold: F,
    folded: Vec<T::Native>,
    seen: Vec<bool>,
}

impl<T: ArrowPrimitiveType, F: Fn(&mut T::Native, T::Native) -> Result<()>> Folded<T, F> {
    /// Begins each group with `start`, which nobody sees.
    pub(crate) fn new(start: T::Native, fold: F) -> Self {
        let (folded, seen) = (Vec::new(), Vec::new());
        Self {
            start,
            fold,
            folded,
            seen,
        }
    }

    #[inline]
    fn add(&mut self, group: usize, value: T::Native) -> Result<()> {
        if let (Some(folded), Some(seen)) = (self.folded.get_mut(group), self.seen.get_mut(group)) {
            (self.fold)(folded, value)?;
            *seen = true;
        }
        Ok(())
    }
}

impl<T, F> GroupsAccumulator for Folded<T, F>
where
    T: ArrowPrimitiveType,
    F: Fn(&mut T::Native, T::Native) -> Result<()> + Send + Sync + 'static,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = primitive::<T>(values)?;
        self.folded.resize(total_num_groups, self.start);
        self.seen.resize(total_num_groups, false);
        if values.null_count() == 0 && opt_filter.is_none() {
            for (group, value) in group_indices.iter().zip(values.values()) {
                self.add(*group, *value)?;
            }
            return Ok(());
        }
        for (row, (group, value)) in group_indices.iter().zip(values).enumerate() {
            let counts = opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let Some(value) = value.filter(|_| counts) {
                self.add(*group, value)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let folded = emit_to.take_needed(&mut self.folded);
        let seen = emit_to.take_needed(&mut self.seen);
        let nulls = seen.contains(&false).then(|| NullBuffer::from(seen));
        Ok(Arc::new(PrimitiveArray::<T>::try_new(folded.into(), nulls)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.update_batch(states, group_indices, None, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = primitive::<T>(values)?;
        let Some(filter) = opt_filter else {
            return Ok(vec![Arc::new(values.clone())]);
        };
        let kept = values
            .iter()
            .zip(filter)
            .map(|(value, kept)| value.filter(|_| kept == Some(true)));
        Ok(vec![Arc::new(kept.collect::<PrimitiveArray<T>>())])
    }

    fn size(&self) -> usize {
        self.folded.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}

//! DataFusion's aggregate functions, without three wrong answers and a refusal.
//!
//! 1. `min`, `max` and `count` say that they only fall or grow while a window does, and rows are taken for ordered by them. They are not: the first ones may
//!    be NULL, a window's frame may leave rows behind, and the next partition begins anew. Here they say nothing.
//! 2. The greatest of a group's floats begins with the smallest number, so that a group of `-Infinity` alone has that number; and a NaN is forgotten or
//!    not by the order of the rows. Here both begin with what no value is beyond, and NaN is the greatest, as it is in an order and without groups.
//! 3. Beside a list in an order, as that of `array_agg(a ORDER BY a DESC)`, one in the other order is made by the same order and turned round, which lists of distinct values
//!    are not. Here each is made by its own.
//! 4. Two of `string_agg` in one statement, each with an order of its own, are refused, as it is said to need its rows in that order. It sorts them by itself.
//!
//! Coordinator and workers know them by their names, since plans travel with names only.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrowNativeTypeOp, ArrowPrimitiveType};
use datafusion::arrow::datatypes::{DataType, FieldRef, Float16Type, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::{
    array_agg::array_agg_udaf, count::count_udaf, min_max::max_udaf, min_max::min_udaf, string_agg::string_agg_udaf,
};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature, StatisticsArgs,
};

use crate::{arithmetic, folded::Folded, mean};

static GUARDED: LazyLock<[Arc<AggregateUDF>; 5]> = LazyLock::new(|| {
    [
        array_agg_udaf(),
        count_udaf(),
        max_udaf(),
        min_udaf(),
        string_agg_udaf(),
    ]
    .map(|function| Arc::new(AggregateUDF::from(Guarded(function))))
});

/// The functions that take the place of DataFusion's of the same names.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    (GUARDED.iter().cloned())
        .chain([arithmetic::sum(), mean::mean()])
        .collect()
}

/// A function that is DataFusion's but for what is said above.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded(Arc<AggregateUDF>);

impl Guarded {
    fn extremes<T: ArrowPrimitiveType>(&self) -> Option<Box<dyn GroupsAccumulator>> {
        let (lowest, highest) = (T::Native::MIN_TOTAL_ORDER, T::Native::MAX_TOTAL_ORDER);
        match self.0.name() {
            "max" => Some(Box::new(Folded::<T, _>::new(lowest, |kept: &mut T::Native, value| {
                if value.is_gt(*kept) {
                    *kept = value;
                }
                Ok(())
            }))),
            "min" => Some(Box::new(Folded::<T, _>::new(highest, |kept: &mut T::Native, value| {
                if value.is_lt(*kept) {
                    *kept = value;
                }
                Ok(())
            }))),
            _ => None,
        }
    }
}

impl AggregateUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.0.return_field(fields)
    }

    fn is_nullable(&self) -> bool {
        self.0.is_nullable()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.0.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let extremes = match args.return_field.data_type() {
            DataType::Float16 => self.extremes::<Float16Type>(),
            DataType::Float32 => self.extremes::<Float32Type>(),
            DataType::Float64 => self.extremes::<Float64Type>(),
            _ => None,
        };
        extremes.map_or_else(|| self.0.create_groups_accumulator(args), Ok)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.0.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        match self.0.order_sensitivity() {
            AggregateOrderSensitivity::HardRequirement => AggregateOrderSensitivity::SoftRequirement,
            other => other,
        }
    }

    fn with_beneficial_ordering(self: Arc<Self>, _is_ordered: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        // Rows that are in order are sorted again, which takes little.
        let is_sorted_here = self.order_sensitivity().is_beneficial();
        Ok(is_sorted_here.then_some(self as Arc<dyn AggregateUDFImpl>))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.0.reverse_udf() {
            ReversedUDAF::Reversed(_) => ReversedUDAF::NotSupported,
            other => other,
        }
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.0.simplify()
    }

    fn is_descending(&self) -> Option<bool> {
        self.0.is_descending()
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.0.value_from_stats(args)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.0.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.0.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.0.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn set_monotonicity(&self, _data_type: &DataType) -> SetMonotonicity {
        SetMonotonicity::NotMonotonic
    }
}

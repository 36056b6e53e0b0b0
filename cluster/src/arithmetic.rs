//! Arithmetic of whole numbers that says when a result does not fit.
//!
//! DataFusion's `+`, `-`, `*` and `sum` wrap around: the largest number plus one is the smallest, and nobody is told. In: an operator. Out: a
//! function that gives the same number or an error. Coordinator and workers know them by name, since plans travel with names only. Other
//! types (floats, decimals, dates) are left to DataFusion, which does not wrap them.

use std::fmt;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::compute::sum_checked;
use datafusion::arrow::datatypes::{ArrowNativeTypeOp, DataType, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, GroupsAccumulator, Operator, ReturnFieldArgs,
    ReversedUDAF, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, StatisticsArgs, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

use crate::different::Different;
use crate::folded::Folded;

static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 3]> = LazyLock::new(|| {
    [Operator::Plus, Operator::Minus, Operator::Multiply].map(|operator| {
        Arc::new(ScalarUDF::from(Checked {
            operator,
            signature: Signature::any(2, Volatility::Immutable),
        }))
    })
});
static SUM: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(AggregateUDF::from(CheckedSum(Sum::new()))));

/// The function that computes as the operator does and says when the result does not fit; for `+`, `-` and `*`.
pub fn checked(operator: Operator) -> Option<Arc<ScalarUDF>> {
    let [plus, minus, times] = &*FUNCTIONS;
    match operator {
        Operator::Plus => Some(Arc::clone(plus)),
        Operator::Minus => Some(Arc::clone(minus)),
        Operator::Multiply => Some(Arc::clone(times)),
        _ => None,
    }
}

/// `sum`, which says when a sum of whole numbers does not fit.
pub(crate) fn sum() -> Arc<AggregateUDF> {
    Arc::clone(&SUM)
}

/// What plans may name that came from [`checked`].
pub(crate) fn functions() -> &'static [Arc<ScalarUDF>] {
    &*FUNCTIONS
}

/// `a + b`, `a - b` or `a * b` of two whole numbers of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operator: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operator {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] => Ok(format!("({left} {} {right})", self.operator)),
            _ => internal_err!("`{}` takes two values", self.name()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] if left == right && left.is_integer() => Ok(left.clone()),
            _ => internal_err!("`{}` takes two whole numbers of one type, not {types:?}", self.name()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let field = Field::new(self.name(), self.return_type(&types)?, nullable);
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return internal_err!("`{}` takes two values", self.name());
        };
        match self.operator {
            Operator::Plus => apply(left, right, numeric::add),
            Operator::Minus => apply(left, right, numeric::sub),
            _ => apply(left, right, numeric::mul),
        }
    }
}

/// DataFusion's `sum` with other accumulators for whole numbers. That sums of numbers without a sign grow is not told: a window's first may be NULL, which
/// is the largest.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum(Sum);

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match (args.return_field.data_type(), args.is_distinct) {
            (DataType::Int64, false) => Ok(Box::new(Total::<Int64Type>::default())),
            (DataType::Int64, true) => Ok(Box::new(Different::<Int64Type, _>::new(fitting::<Int64Type>))),
            (DataType::UInt64, false) => Ok(Box::new(Total::<UInt64Type>::default())),
            (DataType::UInt64, true) => Ok(Box::new(Different::<UInt64Type, _>::new(fitting::<UInt64Type>))),
            _ => self.0.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match args.return_field.data_type() {
            DataType::Int64 => Ok(Box::new(Folded::<Int64Type, _>::new(0, add::<Int64Type>))),
            DataType::UInt64 => Ok(Box::new(Folded::<UInt64Type, _>::new(0, add::<UInt64Type>))),
            _ => self.0.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match args.return_field.data_type() {
            DataType::Int64 | DataType::UInt64 => self.accumulator(args),
            _ => self.0.create_sliding_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.0.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.0.simplify()
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.0.value_from_stats(args)
    }
}

fn add<T: ArrowPrimitiveType>(sum: &mut T::Native, value: T::Native) -> Result<()> {
    match sum.add_checked(value) {
        Ok(total) => *sum = total,
        Err(_) => return too_large::<T, _>(),
    }
    Ok(())
}

/// The sum of different numbers, if it fits.
fn fitting<T: ArrowPrimitiveType<Native: TryFrom<i128>>>(sum: i128, numbers: u64) -> Result<ScalarValue> {
    match T::Native::try_from(sum) {
        Ok(sum) => ScalarValue::new_primitive::<T>((numbers > 0).then_some(sum), &T::DATA_TYPE),
        Err(_) => too_large::<T, _>(),
    }
}

fn too_large<T: ArrowPrimitiveType, R>() -> Result<R> {
    exec_err!(
        "Overflow happened on: sum of {} values; cast them to DECIMAL(38, 0) first",
        T::DATA_TYPE
    )
}

fn whole<T: ArrowPrimitiveType>(values: &[ArrayRef]) -> Result<&PrimitiveArray<T>> {
    match values.first().and_then(|values| values.as_primitive_opt::<T>()) {
        Some(values) => Ok(values),
        None => internal_err!("`sum` of {} was given something else", T::DATA_TYPE),
    }
}

/// One sum, of which rows can be taken back.
struct Total<T: ArrowPrimitiveType> {
    sum: T::Native,
    rows: usize,
}

impl<T: ArrowPrimitiveType> Default for Total<T> {
    fn default() -> Self {
        let (sum, rows) = (T::Native::ZERO, 0);
        Self { sum, rows }
    }
}

impl<T: ArrowPrimitiveType> fmt::Debug for Total<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Total")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<T: ArrowPrimitiveType> Accumulator for Total<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = whole::<T>(values)?;
        let sum = sum_checked(values).map(Option::unwrap_or_default);
        match sum.and_then(|sum| self.sum.add_checked(sum)) {
            Ok(sum) => self.sum = sum,
            Err(_) => return too_large::<T, _>(),
        }
        self.rows += values.len() - values.null_count();
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = whole::<T>(values)?;
        let sum = sum_checked(values).map(Option::unwrap_or_default);
        match sum.and_then(|sum| self.sum.sub_checked(sum)) {
            Ok(sum) => self.sum = sum,
            Err(_) => return too_large::<T, _>(),
        }
        self.rows -= values.len() - values.null_count();
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::new_primitive::<T>((self.rows > 0).then_some(self.sum), &T::DATA_TYPE)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

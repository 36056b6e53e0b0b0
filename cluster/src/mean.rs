//! The mean of whole numbers, which is exact.
//!
//! DataFusion's `avg` adds them as floating point numbers: what a sum has beyond 53 bits is lost, and how much depends on the order of the rows. In: whole
//! numbers of any width. Out: the double that is nearest to their sum, divided by the one that is nearest to their count, which is what databases find that
//! add them in decimals. The sum has 128 bits, so that no number of rows is too many. Other types are left to DataFusion.
//!
//! Coordinator and workers know it by its name, since plans travel with names only.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, Float64Array, PrimitiveArray,
    UInt64Array, downcast_integer,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::functions_aggregate::average::Avg;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Coercion, Documentation, EmitTo, Expr, ExprSchemable,
    GroupsAccumulator, ReversedUDAF, Signature, TypeSignature, TypeSignatureClass,
};

use crate::different::{Different, Whole, wide};

static MEAN: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(AggregateUDF::from(ExactMean::new(Avg::new()))));

/// `avg`, which is exact for whole numbers.
pub(crate) fn mean() -> Arc<AggregateUDF> {
    Arc::clone(&MEAN)
}

/// DataFusion's `avg`, which takes whole numbers as they are.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactMean {
    of_others: Avg,
    signature: Signature,
}

impl ExactMean {
    fn new(of_others: Avg) -> Self {
        let theirs = of_others.signature();
        let whole = TypeSignature::Coercible(vec![Coercion::new_exact(TypeSignatureClass::Integer)]);
        // The first that fits is taken.
        let kinds = match &theirs.type_signature {
            TypeSignature::OneOf(kinds) => [vec![whole], kinds.clone()].concat(),
            other => vec![whole, other.clone()],
        };
        let signature = Signature::one_of(kinds, theirs.volatility);
        Self { of_others, signature }
    }
}

impl AggregateUDFImpl for ExactMean {
    fn name(&self) -> &str {
        self.of_others.name()
    }

    fn aliases(&self) -> &[String] {
        self.of_others.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.of_others.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        macro_rules! made {
            ($type:ty, $is_distinct:expr) => {
                match $is_distinct {
                    true => Ok(Box::new(Different::<$type, _>::new(mean_of))),
                    false => Ok(Box::new(Mean::<$type>::default())),
                }
            };
        }
        let is_distinct = args.is_distinct;
        downcast_integer! {
            argument(args.expr_fields) => (made, is_distinct),
            _ => self.of_others.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let data_type = argument(args.input_fields);
        if !data_type.is_integer() {
            return self.of_others.state_fields(args);
        }
        let field = |name: &str, data_type| Arc::new(Field::new(format_state_name(args.name, name), data_type, true));
        Ok(match args.is_distinct {
            true => vec![field("avg distinct", DataType::new_list(data_type.clone(), true))],
            false => vec![field("count", DataType::UInt64), field("sum", SUM)],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match argument(args.expr_fields).is_integer() {
            true => !args.is_distinct,
            false => self.of_others.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        macro_rules! made {
            ($type:ty) => {
                Ok(Box::new(Means::<$type>::default()))
            };
        }
        downcast_integer! {
            argument(args.expr_fields) => (made),
            _ => self.of_others.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match argument(args.expr_fields).is_integer() {
            true => self.accumulator(args),
            false => self.of_others.create_sliding_accumulator(args),
        }
    }

    /// The mean of whole numbers that were made doubles without a loss is that of the numbers themselves, which more can be done with.
    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        Some(Box::new(|mut function, info| {
            if let [Expr::Cast(cast)] = function.params.args.as_slice()
                && *cast.field.data_type() == DataType::Float64
                && (cast.expr.get_type(info.schema().as_ref())).is_ok_and(|data_type| is_exact_in_doubles(&data_type))
            {
                function.params.args = vec![cast.expr.as_ref().clone()];
            }
            Ok(Expr::AggregateFunction(function))
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.of_others.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.of_others.reverse_expr()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_others.documentation()
    }
}

/// What sums travel as between steps. Those of 2^60 rows, whatever is in them, have no more digits.
const SUM: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

fn argument(fields: &[FieldRef]) -> &DataType {
    fields.first().map_or(&DataType::Null, |field| field.data_type())
}

fn is_exact_in_doubles(data_type: &DataType) -> bool {
    data_type.is_integer() && !matches!(data_type, DataType::Int64 | DataType::UInt64)
}

fn primitive<T: ArrowPrimitiveType>(values: &[ArrayRef], at: usize) -> Result<&PrimitiveArray<T>> {
    match values.get(at).and_then(|values| values.as_primitive_opt::<T>()) {
        Some(values) => Ok(values),
        None => internal_err!("`avg` of {} was given something else", T::DATA_TYPE),
    }
}

/// The rows that count, if not all do.
fn counting(values: &dyn Array, filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let kept = filter.map(|filter| match filter.nulls() {
        Some(nulls) => NullBuffer::new(filter.values() & nulls.inner()),
        None => NullBuffer::new(filter.values().clone()),
    });
    NullBuffer::union(kept.as_ref(), values.nulls()).filter(|nulls| nulls.null_count() > 0)
}

fn mean_of(sum: i128, rows: u64) -> Result<ScalarValue> {
    Ok(ScalarValue::Float64(quotient(sum, rows)))
}

fn quotient(sum: i128, rows: u64) -> Option<f64> {
    (rows > 0).then_some(sum as f64 / rows as f64)
}

fn total<T: Whole>(values: &PrimitiveArray<T>) -> i128 {
    let numbers = values.values().iter().map(wide::<T>);
    match counting(values, None) {
        None => numbers.sum(),
        Some(counts) => numbers
            .zip(&counts)
            .map(|(number, counts)| if counts { number } else { 0 })
            .sum(),
    }
}

/// One mean, of which rows can be taken back.
struct Mean<T> {
    sum: i128,
    rows: u64,
    of: PhantomData<T>,
}

impl<T> Default for Mean<T> {
    fn default() -> Self {
        let (sum, rows, of) = (0, 0, PhantomData);
        Self { sum, rows, of }
    }
}

impl<T> fmt::Debug for Mean<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mean").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl<T: Whole> Accumulator for Mean<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = primitive::<T>(values, 0)?;
        self.sum += total(values);
        self.rows += (values.len() - values.null_count()) as u64;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = primitive::<T>(values, 0)?;
        self.sum -= total(values);
        self.rows -= (values.len() - values.null_count()) as u64;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (rows, sums) = (
            primitive::<UInt64Type>(states, 0)?,
            primitive::<Decimal128Type>(states, 1)?,
        );
        self.rows += rows.values().iter().sum::<u64>();
        self.sum += sums.values().iter().sum::<i128>();
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        mean_of(self.sum, self.rows)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = ScalarValue::Decimal128(Some(self.sum), DECIMAL128_MAX_PRECISION, 0);
        Ok(vec![ScalarValue::UInt64(Some(self.rows)), sum])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The means of groups. A group without a number has no rows, and NULL.
struct Means<T> {
    sums: Vec<i128>,
    rows: Vec<u64>,
    of: PhantomData<T>,
}

impl<T> Default for Means<T> {
    fn default() -> Self {
        let (sums, rows, of) = (Vec::new(), Vec::new(), PhantomData);
        Self { sums, rows, of }
    }
}

impl<T> Means<T> {
    fn grow(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.rows.resize(groups, 0);
    }

    #[inline]
    fn add(&mut self, group: usize, sum: i128, rows: u64) {
        if let (Some(to), Some(count)) = (self.sums.get_mut(group), self.rows.get_mut(group)) {
            *to += sum;
            *count += rows;
        }
    }
}

fn states(rows: Vec<u64>, sums: Vec<i128>) -> Vec<ArrayRef> {
    let sums = Decimal128Array::from(sums).with_data_type(SUM);
    vec![Arc::new(UInt64Array::from(rows)), Arc::new(sums)]
}

impl<T: Whole> GroupsAccumulator for Means<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = primitive::<T>(values, 0)?;
        self.grow(total_num_groups);
        let numbers = group_indices.iter().zip(values.values().iter().map(wide::<T>));
        match counting(values, opt_filter) {
            None => {
                for (group, number) in numbers {
                    self.add(*group, number, 1);
                }
            }
            Some(counts) => {
                for ((group, number), counts) in numbers.zip(&counts) {
                    if counts {
                        self.add(*group, number, 1);
                    }
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = emit_to.take_needed(&mut self.sums);
        let rows = emit_to.take_needed(&mut self.rows);
        let means = sums.into_iter().zip(rows).map(|(sum, rows)| quotient(sum, rows));
        Ok(Arc::new(means.collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums = emit_to.take_needed(&mut self.sums);
        let rows = emit_to.take_needed(&mut self.rows);
        Ok(states(rows, sums))
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let (rows, sums) = (
            primitive::<UInt64Type>(states, 0)?,
            primitive::<Decimal128Type>(states, 1)?,
        );
        self.grow(total_num_groups);
        for ((group, sum), rows) in group_indices.iter().zip(sums.values()).zip(rows.values()) {
            self.add(*group, *sum, *rows);
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = primitive::<T>(values, 0)?;
        let numbers = values.values().iter().map(wide::<T>);
        Ok(match counting(values, opt_filter) {
            None => states(vec![1; values.len()], numbers.collect()),
            Some(counts) => {
                let sums = numbers
                    .zip(&counts)
                    .map(|(number, counts)| if counts { number } else { 0 });
                states(counts.iter().map(u64::from).collect(), sums.collect())
            }
        })
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.rows.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use datafusion::arrow::datatypes::{
        ArrowNativeTypeOp, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, UInt8Type, UInt16Type,
        UInt32Type,
    };
    use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
    use proptest::prelude::*;

    use super::*;

    const GROUPS: usize = 4;

    /// A row: its group, its number, and what the filter says of it.
    type Row<N> = (usize, Option<N>, Option<bool>);

    fn rows<N: Clone + fmt::Debug + 'static>(numbers: BoxedStrategy<N>) -> BoxedStrategy<Vec<Row<N>>> {
        let number = proptest::option::weighted(0.8, numbers);
        let kept = proptest::option::weighted(0.9, proptest::bool::weighted(0.7));
        proptest::collection::vec((0..GROUPS, number, kept), 0..60).boxed()
    }

    fn mean_of(numbers: &[i128]) -> Option<u64> {
        let sum: i128 = numbers.iter().sum();
        (!numbers.is_empty()).then(|| (sum as f64 / numbers.len() as f64).to_bits())
    }

    fn with<R>(data_type: &DataType, is_distinct: bool, make: impl FnOnce(AccumulatorArgs<'_>) -> R) -> R {
        make(AccumulatorArgs {
            return_field: Arc::new(Field::new("avg", DataType::Float64, true)),
            schema: &Schema::empty(),
            expr_fields: &[Arc::new(Field::new("a", data_type.clone(), true))],
            ignore_nulls: false,
            order_bys: &[],
            is_distinct,
            name: "avg",
            is_reversed: false,
            exprs: &[],
        })
    }

    fn groups<T: Whole>() -> Box<dyn GroupsAccumulator> {
        with(&T::DATA_TYPE, false, |args| mean().create_groups_accumulator(args)).unwrap()
    }

    fn column<T: Whole>(rows: &[Row<T::Native>]) -> ArrayRef {
        let values: PrimitiveArray<T> = rows.iter().map(|row| row.1).collect();
        // What is below a NULL is anything.
        let (data_type, _, nulls) = values.into_parts();
        let raw = rows.iter().map(|row| row.1.unwrap_or(T::Native::MAX_TOTAL_ORDER));
        let raw: Vec<T::Native> = raw.collect();
        Arc::new(PrimitiveArray::<T>::new(raw.into(), nulls).with_data_type(data_type))
    }

    fn found(evaluated: ScalarValue) -> Option<u64> {
        match evaluated {
            ScalarValue::Float64(mean) => mean.map(f64::to_bits),
            other => panic!("{other:?}"),
        }
    }

    /// The means of groups are those of the rows that count, in one step and in two, whether rows became states in groups or one by one.
    fn of_groups<T: Whole>(rows: &[Row<T::Native>], at: [usize; 2], is_filtered: bool) -> Result<(), TestCaseError> {
        let counts = |row: &&Row<T::Native>| !is_filtered || row.2 == Some(true);
        let expected: Vec<Option<u64>> = (0..GROUPS)
            .map(|group| {
                let own = rows.iter().filter(|row| row.0 == group).filter(counts);
                mean_of(&own.filter_map(|row| row.1.map(Into::into)).collect::<Vec<i128>>())
            })
            .collect();
        let (first, rest) = rows.split_at(at[0].min(rows.len()));
        let (second, third) = rest.split_at(at[1].min(rest.len()));
        let group = |rows: &[Row<T::Native>]| rows.iter().map(|row| row.0).collect::<Vec<usize>>();
        let filter = |rows: &[Row<T::Native>]| {
            let kept: BooleanArray = rows.iter().map(|row| row.2).collect();
            is_filtered.then_some(kept)
        };
        let bits = |means: &[ArrayRef]| -> Vec<Option<u64>> {
            let means = means.iter().flat_map(|means| means.as_primitive::<Float64Type>());
            means.map(|mean| mean.map(f64::to_bits)).collect()
        };

        let mut whole = groups::<T>();
        let mut parts = groups::<T>();
        for rows in [first, second, third] {
            whole
                .update_batch(&[column::<T>(rows)], &group(rows), filter(rows).as_ref(), GROUPS)
                .unwrap();
        }
        for rows in [first, third] {
            let mut part = groups::<T>();
            part.update_batch(&[column::<T>(rows)], &group(rows), filter(rows).as_ref(), GROUPS)
                .unwrap();
            let states = part.state(EmitTo::All).unwrap();
            parts.merge_batch(&states, &[0, 1, 2, 3], GROUPS).unwrap();
        }
        let states = parts.convert_to_state(&[column::<T>(second)], filter(second).as_ref());
        parts.merge_batch(&states.unwrap(), &group(second), GROUPS).unwrap();

        let emitted = [EmitTo::First(1), EmitTo::All].map(|emit_to| whole.evaluate(emit_to).unwrap());
        prop_assert_eq!(&bits(&emitted), &expected);
        prop_assert_eq!(&bits(&[parts.evaluate(EmitTo::All).unwrap()]), &expected);
        Ok(())
    }

    /// So are those of windows, whose rows come and go, and those of two steps, of all numbers and of different ones.
    fn of_rows<T: Whole>(rows: &[Row<T::Native>], width: usize) -> Result<(), TestCaseError> {
        let of = |rows: &[Row<T::Native>], is_distinct: bool| {
            let numbers = rows.iter().filter_map(|row| row.1.map(Into::into));
            match is_distinct {
                true => mean_of(&numbers.collect::<BTreeSet<i128>>().into_iter().collect::<Vec<_>>()),
                false => mean_of(&numbers.collect::<Vec<_>>()),
            }
        };
        for is_distinct in [false, true] {
            let made = || with(&T::DATA_TYPE, is_distinct, |args| mean().accumulator(args)).unwrap();
            let mut window = with(&T::DATA_TYPE, is_distinct, |args| {
                mean().create_sliding_accumulator(args)
            })
            .unwrap();
            prop_assert!(window.supports_retract_batch());
            for end in 0..rows.len() {
                let start = end.saturating_sub(width);
                window.update_batch(&[column::<T>(&rows[end..=end])]).unwrap();
                if end > width {
                    window.retract_batch(&[column::<T>(&rows[start - 1..start])]).unwrap();
                }
                prop_assert_eq!(found(window.evaluate().unwrap()), of(&rows[start..=end], is_distinct));
            }
            let mut all = made();
            for rows in rows.chunks(width + 1) {
                let mut part = made();
                part.update_batch(&[column::<T>(rows)]).unwrap();
                let states = part.state().unwrap();
                let states: Vec<ArrayRef> = states.iter().map(|state| state.to_array().unwrap()).collect();
                let fields = with(&T::DATA_TYPE, is_distinct, |args| {
                    mean().state_fields(StateFieldsArgs {
                        name: "avg",
                        input_fields: args.expr_fields,
                        return_field: args.return_field,
                        ordering_fields: &[],
                        is_distinct,
                    })
                });
                let told: Vec<DataType> = fields.unwrap().iter().map(|field| field.data_type().clone()).collect();
                let given: Vec<DataType> = states.iter().map(|state| state.data_type().clone()).collect();
                prop_assert_eq!(told, given);
                all.merge_batch(&states).unwrap();
            }
            prop_assert_eq!(found(all.evaluate().unwrap()), of(rows, is_distinct));
        }
        Ok(())
    }

    macro_rules! exact {
        ($($name:ident: $type:ty, $native:ty;)*) => {
            proptest! {
                $(
                    #[test]
                    fn $name(
                        rows in rows(prop_oneof![any::<$native>(), Just(<$native>::MIN), Just(<$native>::MAX)].boxed()),
                        at in [0..60_usize, 0..60_usize],
                        is_filtered in any::<bool>(),
                        width in 0..8_usize,
                    ) {
                        of_groups::<$type>(&rows, at, is_filtered)?;
                        of_rows::<$type>(&rows, width)?;
                    }
                )*
            }
        };
    }

    exact! {
        bytes_are_exact: Int8Type, i8;
        of_16_bits_are_exact: Int16Type, i16;
        of_32_bits_are_exact: Int32Type, i32;
        of_64_bits_are_exact: Int64Type, i64;
        bytes_without_a_sign_are_exact: UInt8Type, u8;
        of_16_bits_without_a_sign_are_exact: UInt16Type, u16;
        of_32_bits_without_a_sign_are_exact: UInt32Type, u32;
        of_64_bits_without_a_sign_are_exact: UInt64Type, u64;
    }

    #[test]
    fn whole_numbers_are_taken_as_they_are() {
        let taken = |data_type: DataType| {
            let field = Arc::new(Field::new("a", data_type, true));
            let taken = fields_with_udf(&[field], mean().as_ref()).unwrap();
            taken[0].data_type().clone()
        };
        for data_type in [DataType::Int8, DataType::Int64, DataType::UInt8, DataType::UInt64] {
            assert_eq!(taken(data_type.clone()), data_type);
        }
        let encoded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Int64));
        assert_eq!(taken(encoded), DataType::Int64);
        assert_eq!(taken(DataType::Float32), DataType::Float64);
        assert_eq!(taken(DataType::Decimal128(9, 2)), DataType::Decimal128(9, 2));
        assert_eq!(mean().return_type(&[DataType::Int64]).unwrap(), DataType::Float64);
    }
}

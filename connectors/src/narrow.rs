//! What a join has learnt of its keys before the other side is read, and what subqueries have found.
//!
//! In: DataFusion's dynamic filters and conditions with subqueries, expressions over the columns of a leaf that are known while the query runs. Out: the conditions that they are when the leaf
//! begins to read, as far as a source may know them: lists of values and ranges. The join above still decides about every row, so what cannot be said to the
//! source is left out.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{HashSet, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, Literal,
};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::utils::collect_columns;

use crate::{Comparison, ScanFilter};

/// The most keys that a join tells as a list. Longer lists, and those of longer texts, are left to the join; their range is not.
pub(crate) const MOST_KEYS: usize = 200_000;
const MOST_BYTES: usize = 512 << 10;
/// So many are told to any source: statements have limits, which differ.
pub(crate) const MOST_KEYS_ANYWHERE: usize = 50_000;
/// So many are told whatever is known of the rows that are read.
const FEW_KEYS: usize = 1_000;
/// A source spends about as long on a key of a list, before it reads anything, as it does to send three rows. A list is told where so many rows are expected for each of its keys.
const ROWS_FOR_A_KEY: usize = 8;

/// Whether an expression is one that is known only while the query runs.
pub(crate) fn is_dynamic(filter: &Arc<dyn PhysicalExpr>) -> bool {
    filter.is::<DynamicFilterPhysicalExpr>()
        || filter.is::<ScalarSubqueryExpr>()
        || filter.children().into_iter().any(is_dynamic)
}

/// Whether an expression has the value of a subquery in it.
pub(crate) fn has_subquery(filter: &Arc<dyn PhysicalExpr>) -> bool {
    filter.is::<ScalarSubqueryExpr>() || filter.children().into_iter().any(has_subquery)
}

/// What an expression without columns is now; `None` when that is not known, or NULL.
fn constant(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return Some(literal.value().clone()).filter(|value| !value.is_null());
    }
    let has_columns = |expr: &Arc<dyn PhysicalExpr>| !collect_columns(expr).is_empty();
    if has_columns(expr) || !is_dynamic(expr) {
        return None;
    }
    match expr.evaluate(&RecordBatch::new_empty(Arc::new(Schema::empty()))) {
        Ok(ColumnarValue::Scalar(value)) if !value.is_null() => Some(value),
        _ => None,
    }
}

/// The conditions that must hold for rows of a leaf, by what is known now. A list in them has at most so many values, and `named` says what the filters call a column, by its
/// place. A long list that leaves out few of the numbers between its least and its greatest is left to the join: their range says nearly the same.
pub(crate) fn conditions(
    filters: &[Arc<dyn PhysicalExpr>],
    schema: &Schema,
    most_listed: usize,
    named: &dyn Fn(usize) -> String,
) -> Vec<ScanFilter> {
    let translating = Translating {
        schema,
        most_listed,
        named,
    };
    filters.iter().flat_map(|filter| translating.told(filter)).collect()
}

/// How many keys are told as a list of so many rows.
pub(crate) fn most_listed(rows: Option<usize>) -> usize {
    match rows {
        Some(rows) => (rows / ROWS_FOR_A_KEY).clamp(FEW_KEYS, MOST_KEYS),
        None => MOST_KEYS_ANYWHERE,
    }
}

struct Translating<'a> {
    schema: &'a Schema,
    /// How many values the lists of a condition may have.
    most_listed: usize,
    named: &'a dyn Fn(usize) -> String,
}

impl Translating<'_> {
    /// Every part of a conjunction that is worth telling.
    fn told(&self, expr: &Arc<dyn PhysicalExpr>) -> impl Iterator<Item = ScanFilter> {
        let mut found = Vec::new();
        self.all(expr, &mut found);
        found
            .into_iter()
            .filter_map(|filter| match self.is_worth_telling(&filter) {
                true => Some(filter),
                false => ranges(filter),
            })
    }

    /// Every part of a conjunction that can be said.
    fn all(&self, expr: &Arc<dyn PhysicalExpr>, found: &mut Vec<ScanFilter>) {
        if let Some(dynamic) = expr.downcast_ref::<DynamicFilterPhysicalExpr>() {
            if let Ok(current) = dynamic.current() {
                self.all(&current, found);
            }
            return;
        }
        match expr.downcast_ref::<BinaryExpr>() {
            Some(both) if *both.op() == Operator::And => {
                self.all(both.left(), found);
                self.all(both.right(), found);
            }
            _ => found.extend(self.one(expr).filter(|filter| *filter != ScanFilter::All(Vec::new()))),
        }
    }

    fn is_worth_telling(&self, filter: &ScanFilter) -> bool {
        is_short(filter, self.most_listed) && !is_dense(filter)
    }

    fn one(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<ScanFilter> {
        if let Some(dynamic) = expr.downcast_ref::<DynamicFilterPhysicalExpr>() {
            return self.one(&dynamic.current().ok()?);
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return match literal.value() {
                ScalarValue::Boolean(Some(true)) => Some(ScanFilter::All(Vec::new())),
                ScalarValue::Boolean(_) => Some(ScanFilter::Any(Vec::new())),
                _ => None,
            };
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            if list.negated() {
                return None;
            }
            let place = self.place(list.expr())?;
            let values: Option<Vec<ScalarValue>> = (list.list().iter())
                // NULL is found by no comparison, and a number that is too large for the column is not in it.
                .filter(|value| !value.downcast_ref::<Literal>().is_some_and(|literal| literal.value().is_null()))
                .filter(|value| !self.is_beyond(value, place))
                .map(|value| self.value(value, place))
                .collect();
            let mut values = values?;
            // A join lists the key of each of its rows.
            let mut seen = HashSet::with_capacity(values.len());
            values.retain(|value| seen.insert(value.clone()));
            return Some(ScanFilter::OneOf {
                column: (self.named)(place),
                values,
            });
        }
        // Each partition of a join has its own part of the keys.
        if let Some(parts) = expr.downcast_ref::<CaseExpr>() {
            let results = parts.when_then_expr().iter().map(|(_, then)| then);
            let results: Option<Vec<ScanFilter>> =
                results.chain(parts.else_expr()).map(|part| self.every(part)).collect();
            return results.map(either);
        }
        let binary = expr.downcast_ref::<BinaryExpr>()?;
        match binary.op() {
            Operator::And => self.every(expr),
            Operator::Or => Some(either(vec![self.every(binary.left())?, self.every(binary.right())?])),
            operator => {
                let comparison = Comparison::from_operator(*operator)?;
                let (place, comparison, value) = match (self.place(binary.left()), self.place(binary.right())) {
                    (Some(place), None) => (place, comparison, binary.right()),
                    (None, Some(place)) => (place, comparison.swapped(), binary.left()),
                    _ => return None,
                };
                Some(ScanFilter::Compare {
                    column: (self.named)(place),
                    comparison,
                    value: self.value(value, place)?,
                })
            }
        }
    }

    /// A conjunction as one condition, without the parts that cannot be said; `None` when none can.
    fn every(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<ScanFilter> {
        let mut found = Vec::new();
        self.all(expr, &mut found);
        match found.len() {
            0 => self.one_without_parts(expr),
            1 => found.pop(),
            _ => Some(ScanFilter::All(found)),
        }
    }

    /// `true` is a condition, too, where it is one of several.
    fn one_without_parts(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<ScanFilter> {
        let literal = expr.downcast_ref::<Literal>()?;
        (*literal.value() == ScalarValue::Boolean(Some(true))).then(|| ScanFilter::All(Vec::new()))
    }

    /// Which column it is; a whole number that was made wider is the same number.
    fn place(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return Some(column.index());
        }
        let cast = expr.downcast_ref::<CastExpr>()?;
        let place = cast.expr().downcast_ref::<Column>()?.index();
        let from = self.schema.fields().get(place)?.data_type();
        let is_wider = |width: Option<u8>, to: Option<u8>| width.is_some() && width <= to;
        is_wider(width(from), width(cast.cast_type())).then_some(place)
    }

    /// Whether a constant is a whole number that its column cannot hold.
    fn is_beyond(&self, expr: &Arc<dyn PhysicalExpr>, place: usize) -> bool {
        let data_type = self.schema.fields().get(place).map(|field| field.data_type());
        match (constant(expr), data_type) {
            // A cast of a single value is slow, and a list has many.
            (Some(value), Some(to)) if width(&value.data_type()) > width(to) && width(to).is_some() => {
                value.cast_to(to).is_err()
            }
            _ => false,
        }
    }

    /// A constant of the column's type.
    fn value(&self, expr: &Arc<dyn PhysicalExpr>, place: usize) -> Option<ScalarValue> {
        let value = constant(expr)?;
        let data_type = self.schema.fields().get(place)?.data_type();
        match value.data_type() == *data_type {
            true => Some(value),
            false if width(&value.data_type()).is_some() && width(data_type).is_some() => {
                value.cast_to(data_type).ok().filter(|value| !value.is_null())
            }
            false => {
                value.try_as_str().flatten()?;
                value.cast_to(data_type).ok()
            }
        }
    }
}

/// How many bytes a whole number with a sign has.
fn width(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::Int8 => Some(1),
        DataType::Int16 => Some(2),
        DataType::Int32 => Some(4),
        DataType::Int64 => Some(8),
        _ => None,
    }
}

/// Whether the lists of a filter together leave out few of the whole numbers between the least and the greatest of them. Several are the parts of one list, which the partitions of a
/// join have.
fn is_dense(filter: &ScanFilter) -> bool {
    let lists = lists(filter);
    let is_of_one = lists
        .windows(2)
        .all(|two| matches!(two, [(first, _), (second, _)] if first == second));
    let number = |value: &ScalarValue| match value {
        ScalarValue::Int16(Some(value)) => Some(i128::from(*value)),
        ScalarValue::Int32(Some(value)) => Some(i128::from(*value)),
        ScalarValue::Int64(Some(value)) => Some(i128::from(*value)),
        _ => None,
    };
    let count: usize = lists.iter().map(|(_, values)| values.len()).sum();
    let numbers = || lists.iter().flat_map(|(_, values)| values.iter()).map_while(number);
    let (Some(least), Some(greatest)) = (numbers().min(), numbers().max()) else {
        return false;
    };
    is_of_one && count > FEW_KEYS && numbers().count() == count && greatest - least < 2 * count as i128
}

/// Whether all lists of a filter together are short enough for a statement.
fn is_short(filter: &ScanFilter, most_listed: usize) -> bool {
    let (values, bytes) = listed(filter);
    values <= most_listed && bytes <= MOST_BYTES
}

/// How many values its lists have, and how many bytes their texts.
fn listed(filter: &ScanFilter) -> (usize, usize) {
    let bytes = |value: &ScalarValue| match value {
        ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) => bytes.len(),
        value => value.try_as_str().flatten().map_or(0, str::len),
    };
    let lists = lists(filter);
    let values = || lists.iter().flat_map(|(_, values)| values.iter());
    (values().count(), values().map(bytes).sum())
}

/// The columns of its lists, and their values.
fn lists(filter: &ScanFilter) -> Vec<(&str, &[ScalarValue])> {
    match filter {
        ScanFilter::OneOf { column, values } => vec![(column, values)],
        ScanFilter::All(filters) | ScanFilter::Any(filters) => filters.iter().flat_map(lists).collect(),
        ScanFilter::Compare { .. } | ScanFilter::IsNull(_) | ScanFilter::IsNotNull(_) => Vec::new(),
    }
}

/// What is left of a filter without its lists; `None` when that is nothing.
fn ranges(filter: ScanFilter) -> Option<ScanFilter> {
    match filter {
        ScanFilter::OneOf { .. } => None,
        ScanFilter::All(filters) => {
            let left: Vec<ScanFilter> = filters.into_iter().filter_map(ranges).collect();
            (!left.is_empty()).then_some(ScanFilter::All(left))
        }
        ScanFilter::Any(filters) => {
            let left: Option<Vec<ScanFilter>> = filters.into_iter().map(ranges).collect();
            left.map(ScanFilter::Any)
        }
        leaf => Some(leaf),
    }
}

/// At least one of these; lists of values of one column become one list.
fn either(parts: Vec<ScanFilter>) -> ScanFilter {
    let mut lists: Vec<(String, Vec<ScalarValue>)> = Vec::new();
    let mut others = Vec::new();
    for part in parts {
        match part {
            // None of nothing.
            ScanFilter::Any(none) if none.is_empty() => {}
            // What holds for all rows of a part leaves out none.
            ScanFilter::All(all) if all.is_empty() => return ScanFilter::All(all),
            ScanFilter::OneOf { column, values } => match lists.iter_mut().find(|(known, _)| *known == column) {
                Some((_, known)) => known.extend(values),
                None => lists.push((column, values)),
            },
            other => others.push(other),
        }
    }
    let lists = lists
        .into_iter()
        .map(|(column, values)| ScanFilter::OneOf { column, values });
    let mut all: Vec<ScanFilter> = lists.chain(others).collect();
    match all.len() {
        1 => all.pop().unwrap_or(ScanFilter::Any(Vec::new())),
        _ => ScanFilter::Any(all),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::{binary, cast, in_list, lit};

    use super::*;

    #[test]
    fn lists_that_are_too_long_together_leave_their_ranges() {
        let list = |count: usize, text: &str| ScanFilter::OneOf {
            column: "a".to_owned(),
            values: vec![ScalarValue::from(text); count],
        };
        let least = ScanFilter::IsNotNull("a".to_owned());
        for (filter, expected) in [
            (list(MOST_KEYS, ""), true),
            (list(MOST_KEYS + 1, ""), false),
            (list(1000, &"x".repeat(MOST_BYTES / 1000 + 1)), false),
            (ScanFilter::Any(vec![list(MOST_KEYS, ""), list(1, "")]), false),
        ] {
            assert_eq!(is_short(&filter, MOST_KEYS), expected);
            let part = ScanFilter::All(vec![least.clone(), filter.clone()]);
            assert_eq!(ranges(filter), None);
            let left = ScanFilter::All(vec![least.clone()]);
            assert_eq!(ranges(part.clone()), Some(left.clone()));
            assert_eq!(
                ranges(ScanFilter::Any(vec![part.clone(), part])),
                Some(ScanFilter::Any(vec![left.clone(), left]))
            );
        }
        assert_eq!(ranges(ScanFilter::Any(vec![least.clone(), list(1, "")])), None);
    }

    #[test]
    fn a_list_is_told_where_it_saves_more_than_it_costs() {
        let schema = schema();
        let all: Vec<_> = (0..60_000_i64).map(|number| lit(number * 3)).collect();
        let is_told = |keys: usize, rows: Option<usize>| {
            let list = in_list(
                column("id", 0),
                all.iter().take(keys).cloned().collect(),
                &false,
                &schema,
            )
            .unwrap();
            !conditions(&[list], &schema, most_listed(rows), &|_| "id".to_owned()).is_empty()
        };
        for (keys, rows, expected) in [
            (50_000, None, true),
            (50_001, None, false),
            (1_000, Some(1), true),
            (1_001, Some(8_000), false),
            (1_001, Some(8_008), true),
            (60_000, Some(480_000), true),
            (60_000, Some(479_999), false),
        ] {
            assert_eq!(is_told(keys, rows), expected, "{keys} of {rows:?}");
        }
        // A list of all rows of a join has keys more than once.
        let repeated = (0..60_000_i64).map(|number| lit(number % 50 * 3)).collect();
        let repeated = in_list(column("id", 0), repeated, &false, &schema).unwrap();
        let told = conditions(&[repeated], &schema, 1_000, &|_| "id".to_owned());
        assert!(
            matches!(told.as_slice(), [ScanFilter::OneOf { values, .. }] if values.len() == 50),
            "{told:?}"
        );
        let numbers = |keys: i64, step: i64| ScanFilter::OneOf {
            column: "id".to_owned(),
            values: (0..keys)
                .map(|number| ScalarValue::Int64(Some(number * step)))
                .collect(),
        };
        assert!(is_dense(&numbers(1_001, 1)) && is_dense(&numbers(1_001, -1)) && !is_dense(&numbers(1_000, 1)));
        assert!(!is_dense(&numbers(1_002, 3)) && !is_dense(&numbers(0, 1)));
    }

    /// Each partition of a join has a list of its own keys, and may have the others' numbers left out.
    #[test]
    fn the_lists_of_partitions_are_looked_at_together() {
        let schema = schema();
        let told = |step: i64| {
            let part = |first: i64| {
                let keys = (0..2_000_i64).map(|number| lit((number * 2 + first) * step)).collect();
                in_list(column("id", 0), keys, &false, &schema).unwrap()
            };
            let parts = CaseExpr::try_new(
                Some(lit(0_i64)),
                vec![(lit(0_i64), part(0)), (lit(1_i64), part(1))],
                Some(lit(false)),
            );
            let named = |_| "id".to_owned();
            let parts: Arc<dyn PhysicalExpr> = Arc::new(parts.unwrap());
            let of = |most| conditions(&[Arc::clone(&parts)], &schema, most, &named);
            assert_eq!(of(3_999), [], "{step}");
            of(4_000)
        };
        assert_eq!(told(1), []);
        let lists = told(3);
        assert!(
            matches!(lists.as_slice(), [ScanFilter::OneOf { values, .. }] if values.len() == 4_000),
            "{} conditions",
            lists.len()
        );
    }

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("name", DataType::Utf8View, true),
        ])
    }

    fn column(name: &str, place: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(name, place))
    }

    fn check(filter: Arc<dyn PhysicalExpr>, expected: &[&str]) {
        let schema = schema();
        let found = conditions(&[filter], &schema, MOST_KEYS, &|place| {
            schema.field(place).name().clone()
        });
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_can_be_said_is_said_and_the_rest_left_out() {
        let schema = schema();
        let (id, name) = (column("id", 0), column("name", 1));
        let compare = |left: &Arc<dyn PhysicalExpr>, op, right| binary(Arc::clone(left), op, right, &schema).unwrap();
        let low = compare(&id, Operator::GtEq, lit(3_i64));
        let high = compare(&id, Operator::LtEq, lit(9_i64));
        let range = compare(&low, Operator::And, Arc::clone(&high));
        let sum = compare(&compare(&id, Operator::Plus, lit(1_i64)), Operator::Eq, lit(2_i64));
        check(Arc::clone(&range), &["id >= 3", "id <= 9"]);
        check(compare(&sum, Operator::And, Arc::clone(&high)), &["id <= 9"]);
        check(compare(&sum, Operator::Or, Arc::clone(&high)), &[]);
        check(lit(true), &[]);
        check(lit(false), &["()"]);
        let texts = vec![lit("a"), lit(ScalarValue::Utf8(None)), lit("b")];
        let names = in_list(Arc::clone(&name), texts, &false, &schema).unwrap();
        check(Arc::clone(&names), &["name IN (a, b)"]);
        check(
            compare(&names, Operator::Or, Arc::clone(&high)),
            &["(name IN (a, b) OR id <= 9)"],
        );
        let dynamic = DynamicFilterPhysicalExpr::new(vec![Arc::clone(&id)], lit(true));
        dynamic.update(range).unwrap();
        check(Arc::new(dynamic), &["id >= 3", "id <= 9"]);
        let part = |values: &[i64]| {
            let values = values.iter().map(|value| lit(*value)).collect();
            in_list(Arc::clone(&id), values, &false, &schema).unwrap()
        };
        let small = Schema::new(vec![Field::new("n", DataType::Int32, true)]);
        let wider = cast(column("n", 0), &small, DataType::Int64).unwrap();
        let filter = in_list(Arc::clone(&wider), vec![lit(5_i64), lit(1_i64 << 40)], &false, &small).unwrap();
        let found = conditions(&[filter], &small, MOST_KEYS, &|_| "n".to_owned());
        let expected = ScanFilter::OneOf {
            column: "n".to_owned(),
            values: vec![ScalarValue::Int32(Some(5))],
        };
        assert_eq!(found, [expected]);
        let beyond = binary(wider, Operator::Lt, lit(1_i64 << 40), &small).unwrap();
        assert_eq!(conditions(&[beyond], &small, MOST_KEYS, &|_| "n".to_owned()), []);
        let parts = CaseExpr::try_new(
            Some(lit(0_i64)),
            vec![
                (lit(0_i64), part(&[1, 2])),
                (lit(1_i64), lit(false)),
                (lit(2_i64), part(&[7])),
            ],
            Some(lit(false)),
        );
        check(Arc::new(parts.unwrap()), &["id IN (1, 2, 7)"]);
        let open = CaseExpr::try_new(Some(lit(0_i64)), vec![(lit(0_i64), part(&[1]))], Some(lit(true)));
        check(Arc::new(open.unwrap()), &[]);
    }
}

//! What a source knows of the values of a column, and how many rows a condition leaves.
//!
//! In: figures that a source gathered some time ago, and conditions over its columns. Out: estimates. They decide where and in which order a query is run, and
//! nothing else: no answer comes from them, and no user is shown any of a table that a policy governs.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics as Planned, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList, Like};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// What conditions leave of a column of which nothing is known.
const SHARE_EQUAL: f64 = 0.1;
const SHARE_OTHER: f64 = 0.33;
const SHARE_NOT_NULL: f64 = 0.95;
/// The share of NULLs where there may be some.
pub(crate) const NULLS_GUESSED: f64 = 1.0 - SHARE_NOT_NULL;
/// Texts that are like a pattern.
const SHARE_LIKE: f64 = 0.05;
/// Deeper conditions are not looked into.
const DEEPEST: usize = 32;

/// What a source knows of a column.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ColumnStatistics {
    /// How many different values it has, without NULL.
    pub(crate) distinct: Option<f64>,
    /// No more than so many, where it is not known how many: whole numbers between two others.
    pub(crate) most: Option<f64>,
    /// The share of rows in which it is NULL.
    pub(crate) nulls: f64,
    /// Bytes of a value.
    pub(crate) width: Option<f64>,
    /// Frequent values, as [`number`] has them, each with its share of all rows.
    pub(crate) common: Vec<(f64, f64)>,
    /// Values in ascending order that divide the rows with other values in equal parts.
    pub(crate) bounds: Vec<f64>,
}

impl ColumnStatistics {
    /// The share of rows that have this value.
    fn equal(&self, value: Option<f64>) -> Option<f64> {
        let found = value.and_then(|value| self.common.iter().find(|(common, _)| *common == value));
        if let Some((_, share)) = found {
            return Some(*share);
        }
        let others = self.distinct.or(self.most)? - self.common.len() as f64;
        Some((self.other_rows() / others.max(1.0)).clamp(0.0, 1.0))
    }

    /// The share of rows that have a value of this or less.
    fn at_most(&self, value: f64) -> Option<f64> {
        if self.common.is_empty() && self.bounds.len() < 2 {
            return None;
        }
        let common: f64 = (self.common.iter().filter(|(common, _)| *common <= value))
            .map(|(_, share)| share)
            .sum();
        Some((common + self.other_rows() * position(&self.bounds, value)).clamp(0.0, 1.0))
    }

    fn between(&self, low: f64, high: f64) -> Option<f64> {
        // Values of a range meet the ends of it more often than not: the lower end counts as outside.
        Some((self.at_most(high)? - self.at_most(low)?).max(1e-6))
    }

    /// The rows with none of the frequent values and not NULL.
    fn other_rows(&self) -> f64 {
        (1.0 - self.nulls - self.common.iter().map(|(_, share)| share).sum::<f64>()).clamp(0.0, 1.0)
    }

    /// The same for DataFusion, of a column of a table with so many rows.
    pub(crate) fn planned(&self, rows: f64) -> Planned {
        let whole = |number: f64| Precision::Inexact(number.clamp(0.0, u32::MAX.into()) as usize);
        let mut planned = Planned::new_unknown();
        planned.null_count = whole(self.nulls * rows);
        if let Some(distinct) = self.distinct {
            planned.distinct_count = whole(distinct.min(rows).max(1.0));
        }
        if let Some(width) = self.width {
            planned.byte_size = whole(width * rows);
        }
        planned
    }
}

/// How far into ordered bounds a value is: 0 before all, 1 after all.
fn position(bounds: &[f64], value: f64) -> f64 {
    let after = bounds.partition_point(|bound| *bound <= value);
    let (Some(low), Some(high)) = (after.checked_sub(1).and_then(|at| bounds.get(at)), bounds.get(after)) else {
        return if after == 0 { 0.0 } else { 1.0 };
    };
    let inside = if high > low { (value - low) / (high - low) } else { 0.5 };
    let inside = if inside.is_finite() { inside } else { 0.5 };
    ((after - 1) as f64 + inside) / (bounds.len() - 1) as f64
}

/// A number, date or time as a number: times in seconds.
pub(crate) fn number(value: &ScalarValue) -> Option<f64> {
    match value {
        ScalarValue::Date32(Some(days)) => Some(f64::from(*days) * 86_400.0),
        ScalarValue::TimestampSecond(Some(time), _) => Some(*time as f64),
        ScalarValue::TimestampMillisecond(Some(time), _) => Some(*time as f64 / 1e3),
        ScalarValue::TimestampMicrosecond(Some(time), _) => Some(*time as f64 / 1e6),
        ScalarValue::TimestampNanosecond(Some(time), _) => Some(*time as f64 / 1e9),
        ScalarValue::Decimal128(Some(digits), _, scale) => Some(*digits as f64 / 10_f64.powi(i32::from(*scale))),
        ScalarValue::Int8(_)
        | ScalarValue::Int16(_)
        | ScalarValue::Int32(_)
        | ScalarValue::Int64(_)
        | ScalarValue::UInt8(_)
        | ScalarValue::UInt16(_)
        | ScalarValue::UInt32(_)
        | ScalarValue::UInt64(_)
        | ScalarValue::Float32(_)
        | ScalarValue::Float64(_) => match value.cast_to(&DataType::Float64).ok()? {
            ScalarValue::Float64(number) => number.filter(|number| !number.is_nan()),
            _ => None,
        },
        _ => None,
    }
}

/// A value of this type that a source wrote as text, as [`number`] would have it.
pub(crate) fn written(text: &str, data_type: &DataType) -> Option<f64> {
    let data_type = match data_type {
        DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _) => data_type,
        data_type if data_type.is_numeric() => return text.parse().ok().filter(|number: &f64| !number.is_nan()),
        _ => return None,
    };
    number(&ScalarValue::try_from_string(text.to_owned(), data_type).ok()?)
}

/// Finds what is known of a column.
pub(crate) type Known<'a> = &'a dyn Fn(&Column) -> Option<Arc<ColumnStatistics>>;

/// The share of rows for which all these conditions hold, as if none had to do with another, except ends of one range.
pub(crate) fn share<'a>(predicates: impl IntoIterator<Item = &'a Expr>, known: Known<'_>) -> f64 {
    all(predicates.into_iter().flat_map(split_conjunction), known, DEEPEST)
}

fn all<'a>(predicates: impl IntoIterator<Item = &'a Expr>, known: Known<'_>, deepest: usize) -> f64 {
    let mut ranges: HashMap<&Column, (Arc<ColumnStatistics>, f64, f64)> = HashMap::new();
    let mut share = 1.0;
    for predicate in predicates {
        match range(predicate, known) {
            Some((column, statistics, low, high)) => {
                let ends = ranges
                    .entry(column)
                    .or_insert((statistics, f64::NEG_INFINITY, f64::INFINITY));
                (ends.1, ends.2) = (ends.1.max(low), ends.2.min(high));
            }
            None => share *= one(predicate, known, deepest),
        }
    }
    for (statistics, low, high) in ranges.values() {
        share *= statistics.between(*low, *high).unwrap_or(SHARE_OTHER);
    }
    // A source may say anything.
    let share = if share.is_nan() { SHARE_OTHER } else { share };
    share.clamp(1e-9, 1.0)
}

/// The column and the ends of its range that a condition is about, where the source knows how values lie.
fn range<'a>(predicate: &'a Expr, known: Known<'_>) -> Option<(&'a Column, Arc<ColumnStatistics>, f64, f64)> {
    let (expr, low, high) = match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (expr, op, value) = match (constant(left), constant(right)) {
                (None, Some(value)) => (left, *op, value),
                (Some(value), None) => (right, op.swap()?, value),
                _ => return None,
            };
            match op {
                Operator::Lt | Operator::LtEq => (expr, f64::NEG_INFINITY, value),
                Operator::Gt | Operator::GtEq => (expr, value, f64::INFINITY),
                _ => return None,
            }
        }
        Expr::Between(Between {
            expr,
            negated: false,
            low,
            high,
        }) => (expr, constant(low)?, constant(high)?),
        _ => return None,
    };
    let column = column(expr)?;
    let statistics = known(column)?;
    statistics.at_most(0.0)?;
    Some((column, statistics, low, high))
}

fn one(predicate: &Expr, known: Known<'_>, deepest: usize) -> f64 {
    let Some(deepest) = deepest.checked_sub(1) else {
        return SHARE_OTHER;
    };
    let of = |expr: &Expr| one(expr, known, deepest);
    let equal = |expr: &Expr, value: &Expr| {
        let statistics = only_column(expr).and_then(known);
        let share = statistics.and_then(|statistics| statistics.equal(constant(value)));
        // Many values of the column become one of those.
        share.map(|share| share.max(1.0 / most_values(expr)))
    };
    let negated = |share: f64, is_negated: bool| if is_negated { 1.0 - share } else { share };
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => all([left.as_ref(), right.as_ref()], known, deepest),
            Operator::Or => {
                let (left, right) = (of(left), of(right));
                left + right - left * right
            }
            Operator::Eq | Operator::IsNotDistinctFrom => {
                let found = if is_literal(right) {
                    equal(left, right)
                } else if is_literal(left) {
                    equal(right, left)
                } else {
                    let distinct = |expr| only_column(expr).and_then(known)?.distinct;
                    let most = distinct(left).into_iter().chain(distinct(right)).reduce(f64::max);
                    most.map(|most| 1.0 / most.max(1.0))
                };
                found.unwrap_or(SHARE_EQUAL)
            }
            Operator::NotEq | Operator::IsDistinctFrom => {
                1.0 - if is_literal(right) { equal(left, right) } else { None }.unwrap_or(SHARE_EQUAL)
            }
            _ => match range(predicate, known) {
                Some((_, statistics, low, high)) => statistics.between(low, high).unwrap_or(SHARE_OTHER),
                None => SHARE_OTHER,
            },
        },
        Expr::Between(between) => {
            let inside = Expr::Between(Between {
                negated: false,
                ..between.clone()
            });
            let found = range(&inside, known).and_then(|(_, statistics, low, high)| statistics.between(low, high));
            negated(found.unwrap_or(SHARE_OTHER), between.negated)
        }
        Expr::InList(InList {
            expr,
            list,
            negated: is_negated,
        }) => {
            let each = list.iter().map(|value| equal(expr, value).unwrap_or(SHARE_EQUAL / 4.0));
            negated(each.sum::<f64>().clamp(0.0, 0.99), *is_negated)
        }
        Expr::Not(inner) | Expr::IsFalse(inner) | Expr::IsNotTrue(inner) => 1.0 - of(inner),
        Expr::IsTrue(inner) | Expr::IsNotFalse(inner) => of(inner),
        Expr::IsNull(inner) | Expr::IsUnknown(inner) => nulls(inner, known).unwrap_or(NULLS_GUESSED),
        Expr::IsNotNull(inner) | Expr::IsNotUnknown(inner) => {
            nulls(inner, known).map_or(SHARE_NOT_NULL, |nulls| 1.0 - nulls)
        }
        Expr::Like(Like {
            negated: is_negated, ..
        }) => negated(SHARE_LIKE, *is_negated),
        Expr::Column(column) => known(column)
            .and_then(|statistics| statistics.equal(Some(1.0)))
            .unwrap_or(0.5),
        _ => SHARE_OTHER,
    }
}

/// What is known of a value that is computed of columns: it has no more different values than these together.
pub(crate) fn computed(expr: &Expr, known: Known<'_>) -> Option<Arc<ColumnStatistics>> {
    let distinct = match expr {
        Expr::Alias(alias) => return computed(&alias.expr, known),
        Expr::Case(case) if case.when_then_expr.iter().all(|(_, then)| is_literal(then)) => {
            case.when_then_expr.len() as f64 + 1.0
        }
        _ => {
            let columns = expr.column_refs();
            let distinct: Option<f64> = columns.into_iter().map(|column| known(column)?.distinct).product();
            distinct?
        }
    };
    Some(Arc::new(ColumnStatistics {
        distinct: Some(distinct.max(1.0)),
        ..ColumnStatistics::default()
    }))
}

/// How many different values there are at most, about, of what a function leaves of a column.
fn most_values(expr: &Expr) -> f64 {
    /// Letters that a place of a text has in a column.
    const LETTERS: f64 = 10.0;
    const LENGTHS: f64 = 50.0;
    let Expr::ScalarFunction(function) = expr else {
        return f64::INFINITY;
    };
    let letters = match function.args.last() {
        Some(Expr::Literal(ScalarValue::Int64(Some(letters)), _)) => *letters as f64,
        _ => f64::INFINITY,
    };
    match (function.func.name(), function.args.len()) {
        ("substr" | "substring", 3) | ("left" | "right", 2) => LETTERS.powf(letters.max(0.0)),
        ("character_length" | "char_length" | "length" | "octet_length", _) => LENGTHS,
        _ => f64::INFINITY,
    }
}

fn nulls(expr: &Expr, known: Known<'_>) -> Option<f64> {
    Some(known(column(expr)?)?.nulls)
}

fn column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) => column(&cast.expr),
        Expr::Alias(alias) => column(&alias.expr),
        _ => None,
    }
}

/// The column that an expression is about, when it is about one.
fn only_column(expr: &Expr) -> Option<&Column> {
    if let Some(column) = column(expr) {
        return Some(column);
    }
    let mut columns = expr.column_refs().into_iter();
    columns.next().filter(|_| columns.next().is_none())
}

fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Cast(cast) => is_literal(&cast.expr),
        _ => false,
    }
}

fn constant(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Literal(value, _) => number(value),
        Expr::Cast(cast) => constant(&cast.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::functions::expr_fn::substring;
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn shares(statistics: ColumnStatistics, predicate: Expr) -> f64 {
        let statistics = Arc::new(statistics);
        share([&predicate], &|column| {
            (column.name == "a").then(|| Arc::clone(&statistics))
        })
    }

    fn even() -> ColumnStatistics {
        ColumnStatistics {
            distinct: Some(1000.0),
            bounds: (0..=10).map(|at| f64::from(at) * 100.0).collect(),
            ..ColumnStatistics::default()
        }
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.001, "{found} is not {expected}");
    }

    #[test]
    fn a_condition_leaves_the_share_that_the_source_knows() {
        near(shares(even(), col("a").eq(lit(7))), 0.001);
        near(shares(even(), lit(7).eq(col("a"))), 0.001);
        near(shares(even(), col("a").not_eq(lit(7))), 0.999);
        near(shares(even(), col("a").lt(lit(250))), 0.25);
        near(shares(even(), lit(250).lt(col("a"))), 0.75);
        near(shares(even(), col("a").gt_eq(lit(250)).and(col("a").lt(lit(350)))), 0.1);
        near(shares(even(), col("a").between(lit(250), lit(350))), 0.1);
        near(shares(even(), col("a").not_between(lit(250), lit(350))), 0.9);
        near(
            shares(even(), col("a").in_list(vec![lit(1), lit(2), lit(3)], false)),
            0.003,
        );
        near(shares(even(), col("a").is_null()), 0.0);
        // Many values begin with the same letter.
        let letter = substring(col("a"), lit(1_i64), lit(1_i64));
        near(shares(even(), letter.eq(lit("7"))), 0.1);
        near(shares(even(), col("a").gt(lit(900)).or(col("a").lt(lit(100)))), 0.19);
        // Beyond its values there is next to nothing, and never nothing.
        let beyond = shares(even(), col("a").gt(lit(5000)));
        assert!(beyond > 0.0 && beyond < 0.001);
    }

    #[test]
    fn frequent_values_count_by_themselves() {
        let statistics = ColumnStatistics {
            distinct: Some(12.0),
            nulls: 0.1,
            common: vec![(1.0, 0.5), (2.0, 0.3)],
            ..ColumnStatistics::default()
        };
        near(shares(statistics.clone(), col("a").eq(lit(1))), 0.5);
        near(shares(statistics.clone(), col("a").eq(lit(3))), 0.01);
        near(shares(statistics.clone(), col("a").lt(lit(2))), 0.8);
        near(shares(statistics.clone(), col("a").is_not_null()), 0.9);
        near(shares(statistics, col("a").is_null()), 0.1);
    }

    #[test]
    fn of_unknown_columns_something_is_assumed() {
        near(shares(even(), col("b").eq(lit(7))), SHARE_EQUAL);
        near(shares(even(), col("b").lt(lit(7))), SHARE_OTHER);
        near(shares(even(), col("b").lt(col("a"))), SHARE_OTHER);
        near(shares(ColumnStatistics::default(), col("a").lt(lit(7))), SHARE_OTHER);
    }

    #[test]
    fn what_is_computed_of_columns_has_no_more_values_than_they() {
        let statistics = Arc::new(even());
        let distinct = |expr: Expr| {
            let known = |column: &Column| (column.name == "a").then(|| Arc::clone(&statistics));
            computed(&expr, &known).and_then(|known| known.distinct)
        };
        assert_eq!(distinct(col("a") + lit(1)), Some(1000.0));
        assert_eq!(distinct(col("a") + col("b")), None);
        let mut case = datafusion::logical_expr::when(col("b").lt(lit(1)), lit("x"));
        assert_eq!(distinct(case.otherwise(lit("y")).unwrap()), Some(2.0));
    }

    #[test]
    fn what_a_source_writes_is_read_as_what_a_plan_has() {
        let day = written("1995-03-15", &DataType::Date32).unwrap();
        assert_eq!(Some(day), number(&ScalarValue::Date32(Some(9204))));
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(written("1970-01-01 00:00:01.5", &time), Some(1.5));
        assert_eq!(written("12.50", &DataType::Decimal128(15, 2)), Some(12.5));
        assert_eq!(number(&ScalarValue::Decimal128(Some(1250), 15, 2)), Some(12.5));
        assert_eq!(written("NaN", &DataType::Float64), None);
        assert_eq!(written("infinity", &DataType::Date32), None);
        assert_eq!(written("x", &DataType::Utf8View), None);
    }

    #[test]
    fn no_figure_makes_a_share_that_is_none() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300];
        for distinct in odd {
            for bound in odd {
                let statistics = ColumnStatistics {
                    distinct: Some(distinct),
                    nulls: bound,
                    common: vec![(bound, distinct)],
                    bounds: vec![bound, bound, 3.0],
                    ..ColumnStatistics::default()
                };
                for predicate in [col("a").eq(lit(1)), col("a").lt(lit(1)), col("a").is_null()] {
                    let found = shares(statistics.clone(), predicate);
                    assert!((1e-9..=1.0).contains(&found), "{found}");
                }
            }
        }
    }
}

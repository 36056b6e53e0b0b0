//! What a source is asked to read: a dataset, columns, rows, and in which pieces.
//!
//! [`ScanFilter`] is the small part of SQL that a source may apply by itself: comparisons of a column with a value of
//! the column's own type, NULL tests, and AND and OR of these. None of them can fail or has an effect, so they may be
//! applied to rows that a policy hides. Everything else stays with DataFusion.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator, expr::InList};
use minerva_resources::Address;

use crate::RemoteQuery;

/// Filters with more values or branches than this are left to DataFusion: sources bound what a statement may hold.
const LARGEST_FILTER: usize = 500;

/// A request to read part of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// The dataset.
    pub address: Address,
    /// The columns to return, in order, as they were when the query was planned. The source finds them by name.
    pub schema: SchemaRef,
    /// The rows to return: those for which all filters are true.
    pub filters: Vec<ScanFilter>,
    /// No more rows than this are needed.
    pub limit: Option<usize>,
    /// The state of the source that every piece is read from, by the name that the source gave it; without one each piece is read as it is
    /// when its reading begins.
    pub snapshot: Option<String>,
    /// The statement whose rows these are, when it is more than a part of one dataset: then `schema` has its columns by their places, and `filters` is
    /// empty. `address` is the first of those that it reads.
    pub query: Option<Arc<RemoteQuery>>,
}

/// One piece of a dataset, which can be read apart from the others. The source that makes the splits gives them their
/// meaning; together they cover the dataset once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The whole dataset.
    Whole,
    /// One of so many parts of similar size, counted from zero.
    Part {
        /// Which part.
        index: u32,
        /// Of how many.
        of: u32,
    },
    /// The units (rows, batches, pages) from `from` up to but not including `to`.
    Range {
        /// The first unit.
        from: u64,
        /// The unit after the last.
        to: u64,
    },
}

/// Neighbouring ranges as one: fewer statements for one reader. Other splits stay as they are.
pub(crate) fn joined(splits: &[Split]) -> Vec<Split> {
    let mut joined: Vec<Split> = Vec::with_capacity(splits.len());
    for split in splits {
        match (joined.last_mut(), split) {
            (Some(Split::Range { to: end, .. }), Split::Range { from, to }) if end == from => *end = *to,
            _ => joined.push(*split),
        }
    }
    joined
}

/// A comparison that a [`ScanFilter`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A condition on rows that a source may apply by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum ScanFilter {
    /// The column compared with a value of its own type that is not NULL.
    Compare {
        /// The column.
        column: String,
        /// How.
        comparison: Comparison,
        /// With what.
        value: ScalarValue,
    },
    /// The column is one of these values of its own type, none of them NULL.
    OneOf {
        /// The column.
        column: String,
        /// The values.
        values: Vec<ScalarValue>,
    },
    /// The column is NULL.
    IsNull(String),
    /// The column is not NULL.
    IsNotNull(String),
    /// All are true.
    All(Vec<ScanFilter>),
    /// At least one is true.
    Any(Vec<ScanFilter>),
}

impl ScanFilter {
    /// The filter that means the same as `expr` over a table of this schema, when there is one.
    pub fn from_expr(expr: &Expr, schema: &Schema) -> Option<ScanFilter> {
        let filter = translate(expr, schema)?;
        (filter.size() <= LARGEST_FILTER).then_some(filter)
    }

    /// Whether `accepts` holds for every comparison and NULL test in it.
    pub fn all_leaves(&self, accepts: &dyn Fn(&ScanFilter) -> bool) -> bool {
        match self {
            ScanFilter::All(filters) | ScanFilter::Any(filters) => {
                filters.iter().all(|filter| filter.all_leaves(accepts))
            }
            ScanFilter::Compare { .. }
            | ScanFilter::OneOf { .. }
            | ScanFilter::IsNull(_)
            | ScanFilter::IsNotNull(_) => accepts(self),
        }
    }

    /// Calls `visit` with each column in it.
    pub fn columns<'a>(&'a self, visit: &mut impl FnMut(&'a str)) {
        match self {
            ScanFilter::Compare { column, .. } | ScanFilter::OneOf { column, .. } => visit(column),
            ScanFilter::IsNull(column) | ScanFilter::IsNotNull(column) => visit(column),
            ScanFilter::All(filters) | ScanFilter::Any(filters) => {
                filters.iter().for_each(|filter| filter.columns(visit));
            }
        }
    }

    fn size(&self) -> usize {
        match self {
            ScanFilter::All(filters) | ScanFilter::Any(filters) => {
                1 + filters.iter().map(ScanFilter::size).sum::<usize>()
            }
            ScanFilter::OneOf { values, .. } => values.len(),
            ScanFilter::Compare { .. } | ScanFilter::IsNull(_) | ScanFilter::IsNotNull(_) => 1,
        }
    }
}

fn translate(expr: &Expr, schema: &Schema) -> Option<ScanFilter> {
    match expr {
        // What filters may become when they are simplified.
        Expr::Literal(ScalarValue::Boolean(value), _) => Some(match value {
            Some(true) => ScanFilter::All(Vec::new()),
            Some(false) | None => ScanFilter::Any(Vec::new()),
        }),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => Some(join(translate(left, schema)?, translate(right, schema)?, true)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => Some(join(translate(left, schema)?, translate(right, schema)?, false)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let comparison = Comparison::from_operator(*op)?;
            if let Some(column) = column(left, schema) {
                compare(column, comparison, right, schema)
            } else {
                compare(column(right, schema)?, comparison.swapped(), left, schema)
            }
        }
        Expr::Between(Between {
            expr,
            negated: false,
            low,
            high,
        }) => {
            let column = column(expr, schema)?;
            let low = compare(column, Comparison::GreaterOrEqual, low, schema)?;
            Some(join(low, compare(column, Comparison::LessOrEqual, high, schema)?, true))
        }
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) => {
            let column = column(expr, schema)?;
            let values: Option<Vec<ScalarValue>> = list.iter().map(|value| literal(value, column, schema)).collect();
            Some(ScanFilter::OneOf {
                column: column.to_owned(),
                values: values?,
            })
        }
        Expr::IsNull(expr) => Some(ScanFilter::IsNull(column(expr, schema)?.to_owned())),
        Expr::IsNotNull(expr) => Some(ScanFilter::IsNotNull(column(expr, schema)?.to_owned())),
        _ => None,
    }
}

/// AND or OR of two filters, kept flat so that long chains stay shallow.
fn join(left: ScanFilter, right: ScanFilter, all: bool) -> ScanFilter {
    let mut filters = Vec::new();
    for side in [left, right] {
        match (side, all) {
            (ScanFilter::All(inner), true) | (ScanFilter::Any(inner), false) => filters.extend(inner),
            (side, _) => filters.push(side),
        }
    }
    if all {
        ScanFilter::All(filters)
    } else {
        ScanFilter::Any(filters)
    }
}

fn column<'a>(expr: &'a Expr, schema: &Schema) -> Option<&'a str> {
    match expr {
        Expr::Column(column) if schema.column_with_name(&column.name).is_some() => Some(&column.name),
        _ => None,
    }
}

fn compare(column: &str, comparison: Comparison, value: &Expr, schema: &Schema) -> Option<ScanFilter> {
    let value = literal(value, column, schema)?;
    Some(ScanFilter::Compare {
        column: column.to_owned(),
        comparison,
        value,
    })
}

/// The value of a literal of the column's type. The three spellings of text are one type here.
fn literal(expr: &Expr, column: &str, schema: &Schema) -> Option<ScalarValue> {
    let Expr::Literal(value, _) = expr else { return None };
    let (_, field) = schema.column_with_name(column)?;
    if value.is_null() {
        return None;
    }
    if value.data_type() == *field.data_type() {
        return Some(value.clone());
    }
    let text = value.try_as_str().flatten()?;
    match field.data_type() {
        DataType::Utf8 => Some(ScalarValue::Utf8(Some(text.to_owned()))),
        DataType::LargeUtf8 => Some(ScalarValue::LargeUtf8(Some(text.to_owned()))),
        DataType::Utf8View => Some(ScalarValue::Utf8View(Some(text.to_owned()))),
        _ => None,
    }
}

impl Comparison {
    pub(crate) fn from_operator(operator: Operator) -> Option<Comparison> {
        match operator {
            Operator::Eq => Some(Comparison::Equal),
            Operator::NotEq => Some(Comparison::NotEqual),
            Operator::Lt => Some(Comparison::Less),
            Operator::LtEq => Some(Comparison::LessOrEqual),
            Operator::Gt => Some(Comparison::Greater),
            Operator::GtEq => Some(Comparison::GreaterOrEqual),
            _ => None,
        }
    }

    pub(crate) fn operator(self) -> Operator {
        match self {
            Comparison::Equal => Operator::Eq,
            Comparison::NotEqual => Operator::NotEq,
            Comparison::Less => Operator::Lt,
            Comparison::LessOrEqual => Operator::LtEq,
            Comparison::Greater => Operator::Gt,
            Comparison::GreaterOrEqual => Operator::GtEq,
        }
    }

    /// The same comparison with its sides exchanged.
    pub(crate) fn swapped(self) -> Comparison {
        match self {
            Comparison::Equal => Comparison::Equal,
            Comparison::NotEqual => Comparison::NotEqual,
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        }
    }

    /// How SQL writes it.
    pub fn sql(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "<>",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        }
    }
}

impl fmt::Display for ScanFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanFilter::Compare {
                column,
                comparison,
                value,
            } => write!(f, "{column} {} {value}", comparison.sql()),
            ScanFilter::OneOf { column, values } => {
                write!(f, "{column} IN (")?;
                list(f, values, ", ")?;
                f.write_str(")")
            }
            ScanFilter::IsNull(column) => write!(f, "{column} IS NULL"),
            ScanFilter::IsNotNull(column) => write!(f, "{column} IS NOT NULL"),
            ScanFilter::All(filters) => {
                f.write_str("(")?;
                list(f, filters, " AND ")?;
                f.write_str(")")
            }
            ScanFilter::Any(filters) => {
                f.write_str("(")?;
                list(f, filters, " OR ")?;
                f.write_str(")")
            }
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            f.write_str(between)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::logical_expr::{cast, col, lit};

    use super::*;

    fn check(expr: Expr, expected: Option<&str>) {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("name", DataType::Utf8View, true),
            Field::new("other", DataType::Int64, true),
        ]);
        let found = ScanFilter::from_expr(&expr, &schema).map(|filter| filter.to_string());
        assert_eq!(found.as_deref(), expected, "{expr}");
    }

    #[test]
    fn neighbouring_ranges_are_read_as_one() {
        let range = |from, to| Split::Range { from, to };
        let part = Split::Part { index: 0, of: 2 };
        assert_eq!(joined(&[range(0, 5), range(5, 9), range(9, 12)]), [range(0, 12)]);
        assert_eq!(joined(&[range(0, 5), range(6, 9)]), [range(0, 5), range(6, 9)]);
        assert_eq!(
            joined(&[range(0, 5), part, part, range(5, 9)]),
            [range(0, 5), part, part, range(5, 9)]
        );
        assert_eq!(joined(&[]), []);
    }

    #[test]
    fn translates_what_cannot_fail_and_nothing_else() {
        check(col("id").gt(lit(3_i64)), Some("id > 3"));
        check(lit(3_i64).gt(col("id")), Some("id < 3"));
        check(col("name").eq(lit("a")), Some("name = a"));
        check(
            col("id")
                .eq(lit(1_i64))
                .or(col("id").eq(lit(2_i64)))
                .or(col("name").is_null()),
            Some("(id = 1 OR id = 2 OR name IS NULL)"),
        );
        check(col("id").between(lit(1_i64), lit(2_i64)), Some("(id >= 1 AND id <= 2)"));
        check(
            col("id").in_list(vec![lit(1_i64), lit(2_i64)], false),
            Some("id IN (1, 2)"),
        );

        check(col("id").in_list(vec![lit(1_i64)], true), None);
        check(
            col("id").in_list(vec![lit(1_i64), lit(ScalarValue::Int64(None))], false),
            None,
        );
        check(col("id").eq(lit(1_i32)), None);
        check(col("id").eq(col("other")), None);
        check(col("gone").is_null(), None);
        check(cast(col("name"), DataType::Int64).eq(lit(1_i64)), None);
        check(
            col("id").eq(lit(1_i64)).and((col("id") + lit(1_i64)).eq(lit(2_i64))),
            None,
        );
        check(col("id").in_list((0..501_i64).map(lit).collect(), false), None);
    }
}

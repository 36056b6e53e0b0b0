//! What a source can be trusted to compute as DataFusion does.
//!
//! In: an operator or a function, and the values that it works on. Out: the text that means the same in the source's SQL, or nothing: then it is computed
//! here. Each dialect is one file of its connector, and what it says yes to is compared with the database itself, value by value, by the tests.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;

use crate::ScanFilter;
use crate::statistics::ColumnStatistics;

/// What may be done with a value in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// It is compared, grouped and sorted there as it is here.
    Exact,
    /// A text.
    Text {
        /// Whether the source, by the value's own collation, finds the same texts equal as are equal here. It never sorts them the same.
        own: bool,
    },
    /// It is handed through.
    Opaque {
        /// Whether it is NULL there when it is NULL here.
        tested: bool,
    },
}

/// A value in the SQL of a source.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    /// The text, which stands for itself: in parentheses where they are needed.
    pub(crate) sql: String,
    /// What it is read as. All texts are `Utf8View`.
    pub(crate) data_type: DataType,
    /// What may be done with it.
    pub(crate) form: Form,
    /// What it is when it is a constant.
    pub(crate) literal: Option<ScalarValue>,
    /// What the source knows of it, when it is a column.
    pub(crate) known: Option<Arc<ColumnStatistics>>,
    /// Whether the source finds the rows that have it without reading others.
    pub(crate) found_by_index: bool,
}

impl Value {
    /// A value that is no constant.
    pub(crate) fn new(sql: String, data_type: DataType, form: Form) -> Value {
        Value {
            sql,
            data_type,
            form,
            literal: None,
            known: None,
            found_by_index: false,
        }
    }

    /// A condition.
    pub(crate) fn condition(sql: String) -> Value {
        Value::new(sql, DataType::Boolean, Form::Exact)
    }

    /// The same value under a name that it has outside of a derived table.
    pub(crate) fn called(&self, sql: String) -> Value {
        Value {
            known: self.known.clone(),
            found_by_index: self.found_by_index,
            ..Value::new(sql, self.data_type.clone(), self.form)
        }
    }

    /// About how many different values it has.
    pub(crate) fn distinct(&self) -> Option<f64> {
        self.known.as_ref()?.distinct
    }

    /// It has no more different values than these, as far as this is known.
    pub(crate) fn most(&self) -> Option<f64> {
        self.known.as_ref()?.most
    }

    /// Whether it is compared, grouped and sorted there as it is here.
    pub(crate) fn is_exact(&self) -> bool {
        self.form == Form::Exact
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.form, Form::Text { .. })
    }

    /// The text that it is, when it is a constant.
    pub(crate) fn constant_text(&self) -> Option<&str> {
        self.literal.as_ref()?.try_as_str().flatten()
    }

    /// The whole number that it is, when it is a constant.
    pub(crate) fn constant_number(&self) -> Option<i64> {
        match self.literal.as_ref()? {
            ScalarValue::Int64(Some(number)) => Some(*number),
            ScalarValue::Int32(Some(number)) => Some(i64::from(*number)),
            _ => None,
        }
    }

    /// Whether it is NULL there when it is here.
    pub(crate) fn is_tested(&self) -> bool {
        !matches!(self.form, Form::Opaque { tested: false })
    }

    pub(crate) fn is_condition(&self) -> bool {
        self.data_type == DataType::Boolean && self.is_exact()
    }
}

/// A table as its dialect writes it.
pub(crate) trait Relation: Debug + Send + Sync {
    /// How its source is spoken to.
    fn dialect(&self) -> &'static dyn Dialect;

    /// The table in a FROM clause, with the alias that its columns are written with.
    fn source(&self) -> Option<String>;

    /// A column; `None` when nothing that has it may be sent.
    fn column(&self, name: &str) -> Option<Value>;

    /// A filter that a scan of the table would apply, where it is worth more than what [`Dialect::compare`] makes of it: an index may find it.
    fn filter(&self, filter: &ScanFilter) -> Option<String>;

    /// Conditions that come after those of the scan and before all others: they fail for rows whose values in these columns are not of their types. `None`
    /// when nothing that has the columns may be sent.
    fn fits(&self, _columns: &[&str]) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// The SQL of a kind of source. Every method answers `None` to what is not computed there exactly as it is here.
pub(crate) trait Dialect: Debug + Send + Sync {
    /// A constant of one of the types that values are read as; NULL has a type, too.
    fn literal(&self, value: &ScalarValue) -> Option<Value>;

    /// `=`, `<>`, `<`, `<=`, `>` or `>=`.
    fn compare(&self, operator: Operator, left: &Value, right: &Value) -> Option<Value>;

    /// Whether the value is one of these constants.
    fn one_of(&self, value: &Value, list: &[Value]) -> Option<Value>;

    /// Whether two values are equal or both NULL; never NULL itself.
    fn same(&self, left: &Value, right: &Value) -> Option<Value> {
        let equal = self.compare(Operator::Eq, left, right)?;
        let both = format!("({} IS NULL AND {} IS NULL)", left.sql, right.sql);
        Some(Value::condition(format!("(({} IS TRUE) OR {both})", equal.sql)))
    }

    /// A condition with `IS TRUE`, `IS NOT TRUE`, `IS FALSE` or `IS NOT FALSE`.
    fn truth(&self, condition: &str, test: &str) -> String {
        format!("({condition} {test})")
    }

    /// `+`, `-` or `*` with a result of this type, which fails where the result does not fit.
    fn arithmetic(&self, operator: Operator, left: &Value, right: &Value, to: &DataType) -> Option<Value>;

    /// A conversion that cannot fail.
    fn cast(&self, value: Value, to: &DataType) -> Option<Value>;

    /// `LIKE` with a constant pattern, whose escape is the backslash.
    fn like(&self, value: &Value, pattern: &str) -> Option<Value>;

    /// A text in small or capital letters, where it has letters of ASCII only, and the condition that a text has others.
    fn letters(&self, value: &Value, are_small: bool) -> Option<(Value, String)>;

    /// A function by the name that DataFusion has for it.
    fn call(&self, name: &str, arguments: &[Value], to: &DataType) -> Option<Value>;

    /// An aggregate function by the name that DataFusion has for it. Without an argument it counts rows.
    fn aggregate(&self, call: &Aggregation<'_>) -> Option<Value>;

    /// Another function over a window by the name that DataFusion has for it.
    fn window(&self, call: &Windowed<'_>) -> Option<Value>;

    /// Whether one SELECT may have windows of several orders.
    fn has_windows_of_many_orders(&self) -> bool {
        true
    }

    /// What values of a type are sent as, where that is another type that has them all.
    fn sent(&self, data_type: &DataType) -> DataType {
        data_type.clone()
    }

    /// What to group by, so that equal values are those that are equal here.
    fn group_key(&self, value: &Value) -> Option<Value>;

    /// A key of [`Dialect::group_key`] as GROUP BY has it.
    fn group_by(&self, key: &Value) -> String {
        key.sql.clone()
    }

    /// Whether HAVING may name a key that is an expression.
    fn has_keys_in_having(&self) -> bool {
        true
    }

    /// What to sort by, so that the order is that of here.
    fn sort_key(&self, value: &Value, ascending: bool, nulls_first: bool) -> Option<String>;

    /// Whether two values of joined rows are equal, where the source finds the rows that meet without looking through all pairs of them.
    fn join_key(&self, left: &Value, right: &Value) -> Option<Value> {
        self.compare(Operator::Eq, left, right)
    }

    /// What stands before and after a SELECT that has a name before a statement which reads it, and in which nothing of the statement is ever evaluated. `None`
    /// where a source does not promise that.
    fn fence(&self, _name: &str) -> Option<(String, String)> {
        None
    }

    /// The same where values that are both NULL are equal as well.
    fn null_safe_key(&self, left: &Value, right: &Value) -> Option<Value> {
        let keys = self.null_safe(left, right)?;
        let keys: Option<Vec<Value>> = keys.iter().map(|(left, right)| self.join_key(left, right)).collect();
        let keys: Vec<String> = keys?.into_iter().map(|key| key.sql).collect();
        Some(Value::condition(format!("({})", keys.join(" AND "))))
    }

    /// Pairs of values that are equal, and never NULL, where these two are equal or both NULL.
    fn null_safe(&self, left: &Value, right: &Value) -> Option<[(Value, Value); 2]> {
        let is_null = |value: &Value| Value::condition(format!("({} IS NULL)", value.sql));
        let known = |value: &Value| {
            let other = self.literal(&any_value(&value.data_type)?)?;
            let form = match value.form {
                Form::Text { .. } => Form::Text { own: false },
                form => form,
            };
            let sql = format!("COALESCE({}, {})", value.sql, other.sql);
            Some(Value::new(sql, value.data_type.clone(), form))
        };
        self.compare(Operator::Eq, left, right)?;
        Some([(is_null(left), is_null(right)), (known(left)?, known(right)?)])
    }

    /// What ends each side of a FULL JOIN, where there is one that takes every condition that [`Dialect::join_key`] and others make.
    fn full_join(&self) -> Option<&'static str> {
        None
    }

    /// Whether another SELECT has a row that meets one.
    fn meets(&self, meeting: &Meeting<'_>) -> Option<String> {
        let word = if meeting.is_negated { "NOT EXISTS" } else { "EXISTS" };
        Some(format!("{word} (SELECT 1 FROM {} WHERE {})", meeting.from, meeting.on))
    }
}

/// A row and a SELECT whose rows it may meet.
#[derive(Debug)]
pub(crate) struct Meeting<'a> {
    /// The SELECT, with the name that its columns are written with.
    pub(crate) from: &'a str,
    /// Values of the row, each with the one of the SELECT that it must be equal to. NULL is equal to none.
    pub(crate) keys: &'a [(Value, Value)],
    /// What must be true besides.
    pub(crate) others: &'a [String],
    /// All of it as one condition.
    pub(crate) on: &'a str,
    /// Whether it must have none.
    pub(crate) is_negated: bool,
}

/// A call of an aggregate function.
#[derive(Debug)]
pub(crate) struct Aggregation<'a> {
    pub(crate) name: &'a str,
    pub(crate) argument: Option<&'a Value>,
    pub(crate) distinct: bool,
    pub(crate) filter: Option<&'a Value>,
    /// The window that it is over, with OVER and a blank before it, or nothing.
    pub(crate) over: &'a str,
    pub(crate) to: &'a DataType,
}

/// A call of a function that is one only over a window.
#[derive(Debug)]
pub(crate) struct Windowed<'a> {
    pub(crate) name: &'a str,
    pub(crate) arguments: &'a [Value],
    /// The window, with OVER and a blank before it.
    pub(crate) over: &'a str,
    /// Whether the window has an order.
    pub(crate) is_ordered: bool,
    pub(crate) to: &'a DataType,
}

impl Windowed<'_> {
    /// The text of the call as most databases write it, which name their functions alike, and what kind of value it is. Rows that have numbers are
    /// counted without a sign here.
    pub(crate) fn text(&self) -> Option<(String, Option<&Value>)> {
        let (name, over) = (self.name, self.over);
        let found = match (name, self.arguments) {
            ("row_number" | "rank" | "dense_rank", []) if *self.to == DataType::UInt64 => {
                Some((format!("{name}(){over}"), None))
            }
            ("first_value" | "last_value", [value]) => Some((format!("{name}({}){over}", value.sql), Some(value))),
            ("lag" | "lead", [value]) => Some((format!("{name}({}, 1){over}", value.sql), Some(value))),
            ("lag" | "lead", [value, rows]) => {
                let rows = rows
                    .constant_number()
                    .filter(|rows| (1..=i64::from(i32::MAX)).contains(rows))?;
                Some((format!("{name}({}, {rows}){over}", value.sql), Some(value)))
            }
            _ => None,
        };
        found.filter(|(_, value)| value.is_none_or(|value| value.is_tested() && value.data_type == plain(self.to)))
    }
}

/// Some value of a type.
fn any_value(data_type: &DataType) -> Option<ScalarValue> {
    match data_type {
        DataType::Boolean => Some(false.into()),
        DataType::Binary => Some(ScalarValue::Binary(Some(Vec::new()))),
        DataType::Utf8View => Some("".into()),
        other => ScalarValue::new_zero(other).ok(),
    }
}

/// The name that the three types of text have in common.
pub(crate) fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        other => other.clone(),
    }
}

/// Whether another SELECT has a row that meets one, as a list of what its keys are: for sources that make such a list once, and would look through the other SELECT for each
/// row otherwise. `None` where rows meet by more than keys. `compared` says how a key is compared.
pub(crate) fn met_by_list(meeting: &Meeting<'_>, compared: &dyn Fn(&Value) -> Option<String>) -> Option<String> {
    if !meeting.others.is_empty() {
        return None;
    }
    let keys = meeting.keys.iter().map(|(kept, other)| {
        let same = kept.data_type == other.data_type;
        Some((compared(kept)?, compared(other)?)).filter(|_| same)
    });
    let keys: Option<Vec<(String, String)>> = keys.collect();
    let (kept, other): (Vec<String>, Vec<String>) = keys?.into_iter().unzip();
    let row = match kept.as_slice() {
        [one] => one.clone(),
        many => format!("({})", many.join(", ")),
    };
    let known: Vec<String> = other.iter().map(|key| format!("{key} IS NOT NULL")).collect();
    let (other, known) = (other.join(", "), known.join(" AND "));
    let found = format!("({row} IN (SELECT {other} FROM {} WHERE {known}))", meeting.from);
    // A row with a NULL meets none.
    Some(match meeting.is_negated {
        true => format!("(NOT COALESCE({found}, 0))"),
        false => found,
    })
}

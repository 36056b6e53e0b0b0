//! DataFusion's expressions in the SQL of a source.
//!
//! In: an expression over the columns of a node. Out: the value in the source's SQL that it is, or nothing. What operators and functions mean there is the
//! dialect's to say; here is only what means the same in every SQL.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, Between, Case, InList, Like, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

use super::dialect::{Aggregation, Dialect, Form, Value, plain};
use super::grow::Grown;
use crate::statistics::ColumnStatistics;

/// Deeper expressions are computed here.
const DEEPEST: usize = 64;
/// Longer lists of constants are.
const LONGEST_LIST: usize = 20_000;
/// So are longer texts: a value that is used twice is written twice.
const LONGEST_TEXT: usize = 4 << 20;

/// Conditions under which a text does not mean the same.
pub(super) type Unless = RefCell<Vec<String>>;

/// The columns that expressions are about, and what they are called in the source.
pub(super) struct Scope<'a> {
    pub(super) dialect: &'static dyn Dialect,
    pub(super) schema: &'a DFSchema,
    pub(super) columns: &'a [Value],
    /// Where a value may be one that is right for most rows, the conditions for the others.
    pub(super) unless: Option<&'a Unless>,
}

/// What expressions over a statement mean.
pub(super) fn scope<'a>(input: &'a Grown, schema: &'a DFSchema) -> Scope<'a> {
    Scope {
        dialect: input.dialect,
        schema,
        columns: &input.select.outputs,
        unless: None,
    }
}

impl Scope<'_> {
    /// The value that an expression is.
    pub(super) fn value(&self, expr: &Expr) -> Option<Value> {
        self.at(expr, DEEPEST)
    }

    /// The condition that an expression is.
    pub(super) fn condition(&self, expr: &Expr) -> Option<String> {
        self.value(expr).filter(Value::is_condition).map(|value| value.sql)
    }

    /// A condition that holds wherever an expression does, and for some rows more: for a source to leave out most of what is decided here. It may be the
    /// expression itself only where [`Scope::condition`] finds it.
    pub(super) fn weaker(&self, expr: &Expr) -> Option<String> {
        let unless = Unless::default();
        let scope = Scope {
            unless: Some(&unless),
            ..*self
        };
        let condition = scope.condition(expr)?;
        let mut all = vec![condition];
        all.extend(unless.into_inner());
        Some(format!("({})", all.join(" OR ")))
    }

    /// What the source knows of a column.
    pub(super) fn known(&self, column: &Column) -> Option<Arc<ColumnStatistics>> {
        self.columns
            .get(self.schema.maybe_index_of_column(column)?)?
            .known
            .clone()
    }

    /// A text in small or capital letters, if it need not be right for all rows.
    fn letters(&self, value: &Value, are_small: bool) -> Option<Value> {
        let unless = self.unless?;
        let (value, others) = self.dialect.letters(value, are_small)?;
        unless.borrow_mut().push(others);
        Some(value)
    }

    fn at(&self, expr: &Expr, deepest: usize) -> Option<Value> {
        let found = self.any(expr, deepest.checked_sub(1)?)?;
        (found.sql.len() <= LONGEST_TEXT).then_some(found)
    }

    fn any(&self, expr: &Expr, deepest: usize) -> Option<Value> {
        let value = |expr: &Expr| self.at(expr, deepest);
        let condition = |expr: &Expr| value(expr).filter(Value::is_condition);
        let tested = |expr: &Expr, test: &str| {
            let tested = value(expr).filter(Value::is_tested)?;
            Some(Value::condition(format!("({} {test})", tested.sql)))
        };
        let truth = |expr: &Expr, test: &str| {
            let tested = condition(expr)?;
            Some(Value::condition(self.dialect.truth(&tested.sql, test)))
        };
        match expr {
            Expr::Column(column) => {
                let index = self.schema.maybe_index_of_column(column)?;
                self.columns.get(index).cloned()
            }
            Expr::Alias(alias) => value(&alias.expr),
            Expr::Literal(literal, _) => self.dialect.literal(literal),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And | Operator::Or => {
                    let (left, right) = (condition(left)?, condition(right)?);
                    Some(Value::condition(format!("({} {op} {})", left.sql, right.sql)))
                }
                Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                    self.dialect.compare(*op, &value(left)?, &value(right)?)
                }
                Operator::IsDistinctFrom => self.not(self.dialect.same(&value(left)?, &value(right)?)?),
                Operator::IsNotDistinctFrom => self.dialect.same(&value(left)?, &value(right)?),
                Operator::Plus | Operator::Minus | Operator::Multiply => {
                    let to = expr.get_type(self.schema).ok()?;
                    self.dialect.arithmetic(*op, &value(left)?, &value(right)?, &to)
                }
                Operator::StringConcat => {
                    let to = expr.get_type(self.schema).ok()?;
                    self.dialect.call("||", &[value(left)?, value(right)?], &to)
                }
                _ => None,
            },
            Expr::Not(inner) => self.not(condition(inner)?),
            Expr::IsNull(inner) => tested(inner, "IS NULL"),
            Expr::IsNotNull(inner) => tested(inner, "IS NOT NULL"),
            Expr::IsTrue(inner) => truth(inner, "IS TRUE"),
            Expr::IsNotTrue(inner) => truth(inner, "IS NOT TRUE"),
            Expr::IsFalse(inner) => truth(inner, "IS FALSE"),
            Expr::IsNotFalse(inner) => truth(inner, "IS NOT FALSE"),
            Expr::IsUnknown(inner) => truth(inner, "IS NULL"),
            Expr::IsNotUnknown(inner) => truth(inner, "IS NOT NULL"),
            Expr::Between(Between {
                expr,
                negated,
                low,
                high,
            }) => {
                let between = value(expr)?;
                let low = self.dialect.compare(Operator::GtEq, &between, &value(low)?)?;
                let high = self.dialect.compare(Operator::LtEq, &between, &value(high)?)?;
                let both = Value::condition(format!("({} AND {})", low.sql, high.sql));
                if *negated { self.not(both) } else { Some(both) }
            }
            Expr::InList(InList { expr, list, negated }) => {
                if list.len() > LONGEST_LIST {
                    return None;
                }
                let list: Option<Vec<Value>> = list.iter().map(value).collect();
                let list = list.filter(|list| !list.is_empty() && list.iter().all(is_constant))?;
                let found = self.dialect.one_of(&value(expr)?, &list)?;
                if *negated { self.not(found) } else { Some(found) }
            }
            Expr::Like(Like {
                negated,
                expr,
                pattern,
                escape_char: None | Some('\\'),
                case_insensitive: false,
            }) => {
                let pattern = value(pattern)?.literal?;
                let found = self.dialect.like(&value(expr)?, pattern.try_as_str().flatten()?)?;
                if *negated { self.not(found) } else { Some(found) }
            }
            Expr::Like(Like {
                negated,
                expr,
                pattern,
                escape_char: None | Some('\\'),
                case_insensitive: true,
            }) => {
                let pattern = value(pattern)?.literal?;
                let pattern = pattern.try_as_str().flatten().filter(|pattern| pattern.is_ascii())?;
                let letters = self.letters(&value(expr)?, true)?;
                let found = self.dialect.like(&letters, &pattern.to_ascii_lowercase())?;
                if *negated { self.not(found) } else { Some(found) }
            }
            Expr::Case(case) => self.case(case, deepest),
            Expr::Cast(cast) => self.dialect.cast(value(&cast.expr)?, cast.field.data_type()),
            Expr::ScalarFunction(function) => self.function(expr, function, deepest),
            _ => None,
        }
    }

    fn not(&self, condition: Value) -> Option<Value> {
        condition
            .is_condition()
            .then(|| Value::condition(format!("(NOT {})", condition.sql)))
    }

    fn case(&self, case: &Case, deepest: usize) -> Option<Value> {
        let of = match &case.expr {
            Some(expr) => Some(self.at(expr, deepest)?),
            None => None,
        };
        let mut sql = "(CASE".to_owned();
        let mut results = Vec::new();
        for (when, then) in &case.when_then_expr {
            let when = self.at(when, deepest)?;
            let when = match &of {
                Some(of) => self.dialect.compare(Operator::Eq, of, &when)?,
                None => Some(when).filter(Value::is_condition)?,
            };
            let then = self.at(then, deepest)?;
            sql.push_str(&format!(" WHEN {} THEN {}", when.sql, then.sql));
            if sql.len() > LONGEST_TEXT {
                return None;
            }
            results.push(then);
        }
        if let Some(otherwise) = &case.else_expr {
            let otherwise = self.at(otherwise, deepest)?;
            sql.push_str(&format!(" ELSE {}", otherwise.sql));
            results.push(otherwise);
        }
        sql.push_str(" END)");
        one_of_them(sql, &results)
    }

    fn function(&self, expr: &Expr, function: &ScalarFunction, deepest: usize) -> Option<Value> {
        let arguments: Option<Vec<Value>> = function.args.iter().map(|arg| self.at(arg, deepest)).collect();
        let arguments = arguments?;
        let to = expr.get_type(self.schema).ok()?;
        match (function.func.name(), arguments.as_slice()) {
            ("coalesce", [_, ..]) => {
                let texts: Vec<&str> = arguments.iter().map(|value| value.sql.as_str()).collect();
                one_of_them(format!("COALESCE({})", texts.join(", ")), &arguments)
            }
            ("nullif", [left, right]) => {
                let equal = self.dialect.compare(Operator::Eq, left, right)?;
                let sql = format!("(CASE WHEN {} THEN NULL ELSE {} END)", equal.sql, left.sql);
                Some(left.called(sql))
            }
            ("checked_add", [left, right]) => self.dialect.arithmetic(Operator::Plus, left, right, &to),
            ("checked_subtract", [left, right]) => self.dialect.arithmetic(Operator::Minus, left, right, &to),
            ("checked_multiply", [left, right]) => self.dialect.arithmetic(Operator::Multiply, left, right, &to),
            ("lower", [value]) => self.letters(value, true),
            ("upper", [value]) => self.letters(value, false),
            (name, arguments) => self.dialect.call(name, arguments, &to),
        }
    }

    /// The aggregate that an expression is.
    pub(super) fn aggregate(&self, expr: &Expr, to: &DataType) -> Option<Value> {
        let expr = match expr {
            Expr::Alias(alias) => &alias.expr,
            other => other,
        };
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else {
            return None;
        };
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return None;
        }
        let argument = match params.args.as_slice() {
            // `count(*)` counts a constant.
            [Expr::Literal(literal, _)] if !literal.is_null() && !params.distinct && func.name() == "count" => None,
            [argument] => Some(self.value(argument)?),
            _ => return None,
        };
        let filter = match &params.filter {
            Some(filter) => Some(self.value(filter).filter(Value::is_condition)?),
            None => None,
        };
        self.dialect.aggregate(&Aggregation {
            name: func.name(),
            argument: argument.as_ref(),
            distinct: params.distinct,
            filter: filter.as_ref(),
            over: "",
            to,
        })
    }
}

fn is_constant(value: &Value) -> bool {
    value.literal.as_ref().is_some_and(|literal| !literal.is_null())
}

/// A value that is one of others, if these are of one type. Texts of several collations have none of their own.
fn one_of_them(sql: String, values: &[Value]) -> Option<Value> {
    let typed: Vec<&Value> = values.iter().filter(|value| !is_null(value)).collect();
    let first = typed.first().copied().or_else(|| values.first())?;
    let same = values.iter().all(|value| value.data_type == first.data_type);
    let own = values.iter().filter(|value| value.literal.is_none()).count() < 2;
    let form = match first.form {
        Form::Exact if typed.iter().all(|value| value.form == Form::Exact) => Form::Exact,
        // What is only read as a text is another type there, of which a text is made, or that is made of a text.
        Form::Text { .. } if typed.iter().all(|value| value.is_text()) => Form::Text {
            own: own && typed.iter().all(|value| value.form == Form::Text { own: true }),
        },
        _ => return None,
    };
    same.then(|| Value::new(sql, plain(&first.data_type), form))
}

fn is_null(value: &Value) -> bool {
    value.literal.as_ref().is_some_and(ScalarValue::is_null)
}

//! Row filters: from a manifest's conditions to a predicate over one table's columns for one principal.
//!
//! A filter says which rows stay visible. NULL hides a row. A condition whose column is missing, whose value does not
//! fit the column's type, or whose attribute the principal lacks is an error, and the table fails closed. What comes
//! out cannot raise an error that carries a value. `in` and `not_in` become chains of comparisons: lists are wrong for
//! NULL under OR and for -0.0.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::expr::{BinaryExpr, Like};
use datafusion::logical_expr::{Expr, Operator, ScalarUDF, lit};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::Dialect;
use minerva_resources::{FilterSpec, Node, Problem, Value, closest};

use crate::expression::SqlExpression;
use crate::mask::text::is_text;
use crate::value::{Lookup, Template, coerce, coerce_text, written};

/// One condition of a filter policy, read and checked as far as it can be without a table.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// A column compared with nothing, one value or several.
    Comparison {
        /// The column; dotted for a field inside a struct.
        column: String,
        /// The comparison.
        comparison: Comparison,
        /// What it is compared with.
        operands: Vec<Operand>,
    },
    /// A SQL predicate.
    Expression(Box<SqlExpression>),
}

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// With one value.
    Is(Operator),
    /// With several values: one of them, or none.
    AnyOf {
        /// Whether none must be equal.
        negated: bool,
    },
    /// With a pattern.
    Like,
    /// With NULL.
    Null {
        /// Whether it must not be NULL.
        negated: bool,
    },
}

/// What a column is compared with.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    /// The same for every principal.
    Fixed(Node),
    /// A text that asks for something of the principal.
    Asked(Template),
}

/// How many values a list in a filter may have: each is a comparison with every row.
pub(crate) const LONGEST_LIST: usize = 10_000;

/// What is said of a longer list.
pub(crate) fn too_long(length: usize) -> String {
    format!(
        "a list has {length} values; at most {LONGEST_LIST} can stand in a policy: filter on a column that says it in fewer"
    )
}

const COMPARISONS: [(&str, Comparison); 11] = [
    ("equals", Comparison::Is(Operator::Eq)),
    ("not_equals", Comparison::Is(Operator::NotEq)),
    ("in", Comparison::AnyOf { negated: false }),
    ("not_in", Comparison::AnyOf { negated: true }),
    ("less_than", Comparison::Is(Operator::Lt)),
    ("less_than_equals", Comparison::Is(Operator::LtEq)),
    ("greater_than", Comparison::Is(Operator::Gt)),
    ("greater_than_equals", Comparison::Is(Operator::GtEq)),
    ("like", Comparison::Like),
    ("is_null", Comparison::Null { negated: false }),
    ("is_not_null", Comparison::Null { negated: true }),
];

impl Condition {
    /// Reads a condition.
    pub(crate) fn read(spec: &FilterSpec) -> Result<Self, Problem> {
        let problem = |message: String| Problem::new(spec.location.clone(), message);
        if let Some(text) = &spec.expression {
            let parsed = SqlExpression::parse(text).map_err(|why| problem(format!("`expression` is wrong: {why}")))?;
            return Ok(Self::Expression(Box::new(parsed)));
        }
        let Some(column) = spec.column.clone() else {
            return Err(problem(
                "a condition names no `column` and has no `expression`".to_owned(),
            ));
        };
        let names = COMPARISONS.map(|(name, _)| name);
        let Some((name, comparison)) = COMPARISONS.into_iter().find(|(name, _)| *name == spec.operator) else {
            let wrong = problem(format!("`{}` is not an operator of filters", spec.operator));
            return Err(match closest(&spec.operator, names) {
                Some(name) => wrong.help(format!("did you mean `{name}`?")),
                None => wrong.help(format!("expected one of `{}`", names.join("`, `"))),
            });
        };
        let nodes = match (comparison, spec.value.as_ref()) {
            (Comparison::Null { .. }, None) => &[][..],
            (
                Comparison::AnyOf { .. },
                Some(Node {
                    value: Value::List(nodes),
                    ..
                }),
            ) if !nodes.is_empty() => nodes,
            (Comparison::Is(_) | Comparison::Like, Some(node)) => std::slice::from_ref(node),
            (Comparison::Null { .. }, Some(_)) => return Err(problem(format!("`{name}` compares with no `value`"))),
            (Comparison::AnyOf { .. }, _) => {
                return Err(problem(format!(
                    "`{name}` expects a list with something in it as its `value`"
                )));
            }
            (_, None) => return Err(problem(format!("`{name}` expects a `value`"))),
        };
        if nodes.len() > LONGEST_LIST {
            return Err(problem(too_long(nodes.len())));
        }
        let operands = nodes
            .iter()
            .map(Operand::read)
            .collect::<Result<_, _>>()
            .map_err(problem)?;
        Ok(Self::Comparison {
            column,
            comparison,
            operands,
        })
    }

    /// Whether it is the same for every principal.
    pub(crate) fn is_fixed(&self) -> bool {
        match self {
            Self::Comparison { operands, .. } => operands.iter().all(|operand| matches!(operand, Operand::Fixed(_))),
            Self::Expression(expression) => expression.is_fixed(),
        }
    }

    /// How the author wrote it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Expression(expression) => expression.text().to_owned(),
            Self::Comparison {
                column,
                comparison,
                operands,
            } => {
                let name = COMPARISONS
                    .iter()
                    .find(|(_, known)| known == comparison)
                    .map_or("", |(name, _)| name);
                let operands: Vec<_> = operands.iter().map(Operand::describe).collect();
                match operands.as_slice() {
                    [] => format!("{column} {name}"),
                    [one] if !matches!(comparison, Comparison::AnyOf { .. }) => format!("{column} {name} {one}"),
                    several => format!("{column} {name} [{}]", several.join(", ")),
                }
            }
        }
    }

    /// What must hold as SQL, with the principal's own values in it.
    pub(crate) fn sql(&self, schema: &Schema, lookup: Lookup<'_>, function: &Arc<ScalarUDF>) -> Result<String, String> {
        if let Self::Expression(expression) = self {
            return expression.sql(lookup);
        }
        if let Self::Comparison {
            column,
            comparison: Comparison::AnyOf { negated },
            operands,
        } = self
        {
            let (_, data_type) = find_column(schema, column)?;
            let values = operands
                .iter()
                .map(|operand| sql_of(&Expr::Literal(operand.value(&data_type, lookup)?, None)))
                .collect::<Result<Vec<_>, String>>()?;
            let negated = if *negated { "NOT " } else { "" };
            return Ok(format!(
                "{} {negated}IN ({})",
                sql_of(&find_column(schema, column)?.0)?,
                values.join(", ")
            ));
        }
        sql_of(&self.predicate(schema, lookup, function)?)
    }

    /// The predicate for one table and one principal.
    pub(crate) fn predicate(
        &self,
        schema: &Schema,
        lookup: Lookup<'_>,
        function: &Arc<ScalarUDF>,
    ) -> Result<Expr, String> {
        let (column, comparison, operands) = match self {
            Self::Expression(expression) => return expression.predicate(schema, lookup, function),
            Self::Comparison {
                column,
                comparison,
                operands,
            } => (column, *comparison, operands),
        };
        let (found, data_type) = find_column(schema, column)?;
        let on_column = |why: String| format!("column `{column}` of type `{data_type}`: {why}");
        let value = |operand: &Operand| operand.value(&data_type, lookup).map_err(on_column);
        match (comparison, operands.as_slice()) {
            (Comparison::Null { negated: false }, []) => Ok(found.is_null()),
            (Comparison::Null { negated: true }, []) => Ok(found.is_not_null()),
            (Comparison::Is(operator), [operand]) => {
                let right = Expr::Literal(value(operand)?, None);
                Ok(Expr::BinaryExpr(BinaryExpr::new(
                    Box::new(found),
                    operator,
                    Box::new(right),
                )))
            }
            (Comparison::Like, [operand]) => {
                if !is_text(crate::mask::value_type(&data_type)) {
                    return Err(on_column("`like` expects a column of text".to_owned()));
                }
                let pattern = operand.pattern(&data_type, lookup).map_err(on_column)?;
                let pattern = Box::new(Expr::Literal(pattern, None));
                Ok(Expr::Like(Like::new(false, Box::new(found), pattern, None, false)))
            }
            (Comparison::AnyOf { negated }, operands) if !operands.is_empty() => {
                let values = operands.iter().map(value).collect::<Result<Vec<_>, _>>()?;
                let literals = values
                    .into_iter()
                    .flat_map(both_zeros)
                    .map(|value| Expr::Literal(value, None))
                    .collect();
                Ok(if negated {
                    none_of(&found, literals)
                } else {
                    any_of(&found, literals)
                })
            }
            _ => Err(format!(
                "the condition on column `{column}` compares with too few or too many values"
            )),
        }
    }
}

impl Operand {
    fn read(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Text(text) => {
                let template = Template::parse(text)?;
                Ok(if template.is_fixed() {
                    Self::Fixed(node.clone())
                } else {
                    Self::Asked(template)
                })
            }
            Value::Bool(_) | Value::Integer(_) => Ok(Self::Fixed(node.clone())),
            Value::Float(number) if number.is_finite() => Ok(Self::Fixed(node.clone())),
            _ => Err(format!("expected a single value, not {}", written(node))),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Fixed(node) => written(node),
            Self::Asked(template) => template
                .expand(&|name| Some(format!("${{{name}}}")), |value| value)
                .unwrap_or_default(),
        }
    }

    fn value(&self, data_type: &DataType, lookup: Lookup<'_>) -> Result<ScalarValue, String> {
        match self {
            Self::Fixed(node) => coerce(node, data_type),
            Self::Asked(template) => coerce_text(&template.expand(lookup, |value| value)?, data_type),
        }
    }

    /// The value as a pattern of `like`, in which what comes from the principal stands for itself.
    fn pattern(&self, data_type: &DataType, lookup: Lookup<'_>) -> Result<ScalarValue, String> {
        match self {
            Self::Fixed(node) => coerce(node, data_type),
            Self::Asked(template) => coerce_text(&template.expand(lookup, escaped)?, data_type),
        }
    }
}

/// A text as a pattern that only it matches.
fn escaped(text: String) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// A column by its name, or by a dotted path a field inside a struct; and its type.
fn find_column(schema: &Schema, name: &str) -> Result<(Expr, DataType), String> {
    if let Ok(field) = schema.field_with_name(name) {
        return Ok((Expr::Column(Column::new_unqualified(name)), field.data_type().clone()));
    }
    let nested = || {
        let (column, rest) = name.split_once('.')?;
        let mut data_type = schema.field_with_name(column).ok()?.data_type();
        let mut expr = Expr::Column(Column::new_unqualified(column));
        for segment in rest.split('.') {
            let DataType::Struct(fields) = data_type else {
                return None;
            };
            data_type = fields.find(segment)?.1.data_type();
            expr = get_field(expr, segment);
        }
        Some((expr, data_type.clone()))
    };
    nested().ok_or_else(|| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        match closest(name, names) {
            Some(close) => format!("there is no column `{name}`; did you mean `{close}`?"),
            None => format!("there is no column `{name}`"),
        }
    })
}

/// SQL as people write it: a name has quotes where it would mean something else without.
struct PlainNames;

impl Dialect for PlainNames {
    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        let is_plain = identifier
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
        let reads_as_itself = || {
            let parser = Parser::new(&GenericDialect {}).try_with_sql(identifier);
            let read = parser.and_then(|mut parser| Ok((parser.parse_expr()?, parser.peek_token().token)));
            matches!(read, Ok((ast::Expr::Identifier(found), Token::EOF)) if found.value == identifier)
        };
        (!is_plain || !reads_as_itself()).then_some('"')
    }
}

/// An expression as SQL; a dictionary's literal as that of its value.
fn sql_of(expr: &Expr) -> Result<String, String> {
    let plain = expr.clone().transform(|part| {
        Ok(match part {
            Expr::Literal(ScalarValue::Dictionary(_, value), metadata) => {
                Transformed::yes(Expr::Literal(*value, metadata))
            }
            other => Transformed::no(other),
        })
    });
    let plain = plain.map_err(|error| error.strip_backtrace())?.data;
    let sql = Unparser::new(&PlainNames)
        .expr_to_sql(&plain)
        .map_err(|error| error.strip_backtrace())?;
    let text = sql.to_string();
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    Ok(inner
        .filter(|inner| !inner.contains(['(', ')']))
        .unwrap_or(&text)
        .to_owned())
}

/// Both zeros for a floating-point zero, so that a list finds either however it is searched.
fn both_zeros(value: ScalarValue) -> Vec<ScalarValue> {
    match value {
        ScalarValue::Float64(Some(0.0)) => {
            vec![ScalarValue::Float64(Some(0.0)), ScalarValue::Float64(Some(-0.0))]
        }
        ScalarValue::Float32(Some(0.0)) => {
            vec![ScalarValue::Float32(Some(0.0)), ScalarValue::Float32(Some(-0.0))]
        }
        other => vec![other],
    }
}

/// `left = a OR left = b OR ...`
pub(crate) fn any_of(left: &Expr, list: Vec<Expr>) -> Expr {
    let equal = list.into_iter().map(|right| left.clone().eq(right)).collect();
    balanced(equal, Expr::or).unwrap_or_else(|| lit(false))
}

/// `left <> a AND left <> b AND ...`
pub(crate) fn none_of(left: &Expr, list: Vec<Expr>) -> Expr {
    let different = list.into_iter().map(|right| left.clone().not_eq(right)).collect();
    balanced(different, Expr::and).unwrap_or_else(|| lit(true))
}

/// Joins expressions two by two, so that a long list does not make a deep tree.
fn balanced(mut exprs: Vec<Expr>, join: fn(Expr, Expr) -> Expr) -> Option<Expr> {
    while exprs.len() > 1 {
        let mut joined = Vec::with_capacity(exprs.len().div_ceil(2));
        let mut rest = exprs.into_iter();
        while let Some(left) = rest.next() {
            joined.push(match rest.next() {
                Some(right) => join(left, right),
                None => left,
            });
        }
        exprs = joined;
    }
    exprs.pop()
}

/// Whether evaluating a boolean expression over columns of `schema` can raise no error, and an optimizer that knows
/// SQL cannot make it wrong: comparisons of columns with literals, joined by AND and OR.
pub(crate) fn cannot_fail(expr: &Expr, schema: &Schema) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => cannot_fail(left, schema) && cannot_fail(right, schema),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => [left, right]
            .into_iter()
            .all(|side| cannot_fail(side, schema) && is_safe_under_or(side)),
        _ => is_plain_comparison(expr, schema),
    }
}

/// The optimizer gathers equalities under OR into lists, and lists are wrong for a floating-point zero.
fn is_safe_under_or(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            op: Operator::NotEq, ..
        }) => false,
        Expr::BinaryExpr(BinaryExpr {
            left,
            right,
            op: Operator::Eq,
        }) => [left, right].into_iter().all(|side| match side.as_ref() {
            Expr::Literal(value, _) => !value.data_type().is_floating(),
            _ => true,
        }),
        _ => true,
    }
}

fn is_plain_comparison(expr: &Expr, schema: &Schema) -> bool {
    let is_column = |expr: &Expr| match expr {
        Expr::Column(_) => true,
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Column(column) => schema
                .field_with_name(&column.name)
                .is_ok_and(|field| always_converts(field.data_type(), cast.field.data_type())),
            _ => false,
        },
        _ => false,
    };
    let is_literal = |expr: &Expr| matches!(expr, Expr::Literal(value, _) if !value.is_null());
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let compares = matches!(
                op,
                Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
            );
            compares && (is_column(left) && is_literal(right) || is_literal(left) && is_column(right))
        }
        Expr::IsNull(inner) | Expr::IsNotNull(inner) | Expr::IsTrue(inner) => is_column(inner),
        Expr::Between(between) => {
            !between.negated && is_column(&between.expr) && is_literal(&between.low) && is_literal(&between.high)
        }
        Expr::Like(like) => {
            !like.negated && like.escape_char.is_none() && is_column(&like.expr) && is_literal(&like.pattern)
        }
        Expr::Column(_) => true,
        _ => false,
    }
}

/// Whether every value of one type is a value of the other.
fn always_converts(from: &DataType, to: &DataType) -> bool {
    if let DataType::Dictionary(_, values) = from {
        return **values == *to || always_converts(values, to);
    }
    let width = |data_type: &DataType| match data_type {
        DataType::Int8 | DataType::UInt8 => Some(8),
        DataType::Int16 | DataType::UInt16 => Some(16),
        DataType::Int32 | DataType::UInt32 => Some(32),
        DataType::Int64 | DataType::UInt64 => Some(64),
        _ => None,
    };
    match (width(from), width(to)) {
        (Some(narrow), Some(wide)) => {
            from.is_signed_integer() == to.is_signed_integer() && narrow <= wide
                || to.is_signed_integer() && from.is_unsigned_integer() && narrow < wide
        }
        (Some(_), None) => matches!(to, DataType::Float64),
        _ => {
            matches!((from, to), (DataType::Float32, DataType::Float64))
                || matches!((from, to), (DataType::Utf8, DataType::Utf8View | DataType::LargeUtf8))
        }
    }
}

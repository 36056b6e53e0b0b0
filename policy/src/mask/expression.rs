//! The mask `expression`: the value becomes what a SQL expression makes of it.
//!
//! The expression sees the value, under the name `value`, and nothing else. Whatever it raises is told in a fixed
//! text.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::{is_null, nullif};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use minerva_resources::{MaskSpec, Node, Problem, Value};

use super::parameters::Parameters;
use super::text::{literal, text_argument};
use super::{Failed, Kernel, Mask, MaskKind};
use crate::expression::{Evaluator, SqlExpression};
use crate::keys::KeyRing;

/// What the expression calls the value.
const NAME: &str = "value";

/// The operator `expression`.
#[derive(Debug)]
pub(super) struct ExpressionKind;

impl MaskKind for ExpressionKind {
    fn name(&self) -> &'static str {
        "expression"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_expression"
    }
    fn description(&self) -> &'static str {
        "Replaces the value by that of a SQL expression, written in `sql`, in which the value is called `value`. The \
         expression may use scalar functions and operators, but no subquery, no aggregate, and no function that \
         answers differently each time; its result is converted to the column's type, and NULL stays NULL. An error \
         in it fails the query without telling the value."
    }
    fn types(&self) -> &'static str {
        "every type that the expression can be evaluated for and its result converted to"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: expression\n  expression: {sql: \"concat(left(value, 1), '.')\"}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        // `expression: upper(value)` says the same as `expression: {sql: upper(value)}`.
        let mut long = spec.clone();
        if let Value::Text(_) = &spec.parameters.value {
            let line = spec.parameters.line;
            let key = minerva_resources::Key {
                text: "sql".to_owned(),
                line,
            };
            long.parameters = Node {
                value: Value::Map(vec![(key, spec.parameters.clone())]),
                line,
            };
        }
        let mut parameters = Parameters::new(&long, &["sql"]);
        let sql = parameters.required_text("sql", "a SQL expression over `value`");
        if let Some(Err(error)) = sql.as_deref().map(SqlExpression::parse) {
            parameters.wrong("sql", &format!("a SQL expression: {error}"));
        }
        parameters.finish(sql.map(|sql| Expression { sql }))
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        data_type: &DataType,
        _keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        let evaluator = evaluator(text_argument(arguments, 0)?, data_type)?;
        Ok(Arc::new(ExpressionKernel { evaluator }))
    }
}

fn evaluator(sql: &str, data_type: &DataType) -> Result<Evaluator, String> {
    let schema = Schema::new(vec![Field::new(NAME, data_type.clone(), true)]);
    SqlExpression::parse(sql)?.evaluator(&schema, &|_| None, data_type)
}

#[derive(Debug)]
struct Expression {
    sql: String,
}

impl Mask for Expression {
    fn kind(&self) -> &'static dyn MaskKind {
        &ExpressionKind
    }
    fn describe(&self) -> String {
        format!("expression(sql: {:?})", self.sql)
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        evaluator(&self.sql, data_type)?;
        Ok(vec![literal(&self.sql)])
    }
    fn makes_null(&self, _data_type: &DataType) -> bool {
        true
    }
}

#[derive(Debug)]
struct ExpressionKernel {
    evaluator: Evaluator,
}

impl Kernel for ExpressionKernel {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        if values.is_empty() {
            return Ok(Arc::clone(values));
        }
        let masked = self
            .evaluator
            .evaluate(vec![Arc::clone(values)], values.len())
            .map_err(|_| Failed)?;
        if values.logical_null_count() == 0 {
            return Ok(masked);
        }
        Ok(nullif(&masked, &is_null(values)?)?)
    }
    fn can_fail(&self) -> bool {
        true
    }
}

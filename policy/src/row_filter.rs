//! The function that evaluates a row filter's expression where evaluating could raise an error that carries a value.
//!
//! It is found by name on a worker, and tells nothing: where the expression fails for a row, the statement fails with a
//! fixed text. A row is looked at by itself before that, so that what stands to the left of an AND or OR guards what
//! stands to the right of it.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Result as DataFusionResult, ScalarValue, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::expression::{Evaluator, SqlExpression};

/// Whether each row is visible; fails if the expression does for some row by itself.
fn visible(evaluator: &Evaluator, columns: Vec<ArrayRef>, rows: usize) -> DataFusionResult<ArrayRef> {
    match evaluator.evaluate(columns.clone(), rows) {
        Ok(answer) => Ok(answer),
        Err(_) if rows <= 1 => exec_err!("{FILTER_FAILED}"),
        Err(_) => {
            let half = rows / 2;
            let part = |from: usize, length: usize| columns.iter().map(|column| column.slice(from, length)).collect();
            let first = visible(evaluator, part(0, half), half)?;
            let second = visible(evaluator, part(half, rows - half), rows - half)?;
            Ok(concat(&[first.as_ref(), second.as_ref()])?)
        }
    }
}

/// The function that evaluates a row filter's expression:
/// `(text, number of attributes, name, value ..., name of a column ..., column ...)`.
#[derive(Debug)]
pub(crate) struct FilterFunction {
    signature: Signature,
    evaluators: Mutex<Vec<Made>>,
}

/// An evaluator, and the literals and types it was made for.
type Made = (Vec<ScalarValue>, Vec<DataType>, Evaluator);

/// How many evaluators the function keeps ready.
const EVALUATORS_KEPT: usize = 64;

/// All that is told of a filter that cannot be evaluated at all.
const FILTER_FAILED: &str = "a row filter of this table could not be evaluated";

impl FilterFunction {
    /// The function's name.
    pub(crate) const NAME: &str = "minerva_row_filter";

    /// Makes the function.
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::variadic_any(Volatility::Immutable),
            evaluators: Mutex::new(vec![]),
        }
    }

    fn evaluator(&self, literals: Vec<ScalarValue>, types: Vec<DataType>) -> Option<Evaluator> {
        let found = {
            let evaluators = self.evaluators.lock().unwrap_or_else(PoisonError::into_inner);
            evaluators
                .iter()
                .find(|made| made.0 == literals && made.1 == types)
                .map(|made| made.2.clone())
        };
        if found.is_some() {
            return found;
        }
        let evaluator = make_evaluator(&literals, &types)?;
        let mut evaluators = self.evaluators.lock().unwrap_or_else(PoisonError::into_inner);
        if evaluators.len() >= EVALUATORS_KEPT {
            evaluators.clear();
        }
        evaluators.push((literals, types, evaluator.clone()));
        Some(evaluator)
    }
}

fn make_evaluator(literals: &[ScalarValue], types: &[DataType]) -> Option<Evaluator> {
    let text = |index: usize| literals.get(index).and_then(|value| value.try_as_str().flatten());
    let sql = text(0)?;
    let Some(ScalarValue::Int64(Some(count))) = literals.get(1) else {
        return None;
    };
    let count = usize::try_from(*count).ok()?;
    let mut attributes = HashMap::new();
    for pair in 0..count {
        attributes.insert(text(2 + 2 * pair)?, text(3 + 2 * pair)?.to_owned());
    }
    let names = 2 + 2 * count..literals.len();
    if names.len() != types.len() {
        return None;
    }
    let fields: Option<Vec<_>> = names
        .zip(types)
        .map(|(index, data_type)| Some(Field::new(text(index)?, data_type.clone(), true)))
        .collect();
    let lookup = |name: &str| attributes.get(name).cloned();
    SqlExpression::parse(sql)
        .ok()?
        .evaluator(&Schema::new(fields?), &lookup, &DataType::Boolean)
        .ok()
}

impl PartialEq for FilterFunction {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for FilterFunction {}

impl Hash for FilterFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Self::NAME.hash(state);
    }
}

impl ScalarUDFImpl for FilterFunction {
    fn name(&self) -> &str {
        Self::NAME
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }
    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        // The columns are as many as the names before them: what is left after the text and the attributes, halved.
        let attributes = match arguments.args.get(1) {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(count)))) => usize::try_from(*count).unwrap_or(0),
            _ => return exec_err!("{FILTER_FAILED}"),
        };
        let columns = arguments.args.len().saturating_sub(2 + 2 * attributes) / 2;
        let mut values = arguments.args;
        let columns = values.split_off(values.len() - columns);
        let mut literals = Vec::with_capacity(values.len());
        for value in values {
            match value {
                ColumnarValue::Scalar(value) => literals.push(value),
                ColumnarValue::Array(_) => return exec_err!("{FILTER_FAILED}"),
            }
        }
        let columns = columns
            .into_iter()
            .map(|column| column.into_array(rows))
            .collect::<DataFusionResult<Vec<_>>>()?;
        let types = columns.iter().map(|column| column.data_type().clone()).collect();
        let Some(evaluator) = self.evaluator(literals, types) else {
            return exec_err!("{FILTER_FAILED}");
        };
        let visible = visible(&evaluator, columns, rows)?;
        let visible: BooleanArray = visible.as_boolean().clone();
        Ok(ColumnarValue::Array(Arc::new(visible)))
    }
}

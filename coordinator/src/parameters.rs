//! Values in the place of a statement's parameters.
//!
//! In: a logical plan with parameters `$1`, `$2`, ... and their values in this order. Out: the plan with the values in it. The planner converts
//! values to what the statement needs; what it does not convert, times of another precision, is converted here if no digit is lost.

use datafusion::{arrow::datatypes::DataType, common::ParamValues, logical_expr::LogicalPlan, scalar::ScalarValue};

use crate::error::{Code, QueryError, Result};

/// Puts the values in.
pub(crate) fn bind(plan: LogicalPlan, mut values: Vec<ScalarValue>) -> Result<LogicalPlan> {
    let expected = plan.get_parameter_names()?.len();
    if expected != values.len() {
        let message = format!(
            "the statement has {expected} parameters, {} values were given",
            values.len()
        );
        return Err(QueryError::new(Code::InvalidParameter, message));
    }
    if expected == 0 {
        return Ok(plan);
    }
    let wanted = plan.get_parameter_types()?;
    for (value, number) in values.iter_mut().zip(1..) {
        if let Some(Some(wanted)) = wanted.get(&format!("${number}")) {
            convert(value, wanted, number)?;
        }
    }
    Ok(plan.with_param_values(ParamValues::from(values))?)
}

fn convert(value: &mut ScalarValue, wanted: &DataType, number: usize) -> Result<()> {
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Time32(_) | DataType::Time64(_));
    let found = value.data_type();
    if found == *wanted || !is_time(&found) || !is_time(wanted) {
        return Ok(());
    }
    let converted = value.cast_to(wanted)?;
    if converted.cast_to(&found)? != *value {
        let message = format!(
            "parameter `${number}` is `{value}` of type `{found}`, and is used as a `{wanted}`, which has fewer digits"
        );
        return Err(QueryError::new(Code::InvalidParameter, message).with_hint("round the value, or cast the column"));
    }
    *value = converted;
    Ok(())
}

/// An error about types, with the types of the values that were bound: they stand nowhere in the statement.
pub(crate) fn naming(values: &[ScalarValue]) -> impl Fn(QueryError) -> QueryError + use<> {
    let types: Vec<String> = values
        .iter()
        .zip(1..)
        .map(|(value, number)| format!("parameter `${number}` is of type `{}`", value.data_type()))
        .collect();
    move |error| match error.code {
        Code::TypeMismatch | Code::FunctionNotFound | Code::InvalidCastArgument | Code::NotSupported
            if !types.is_empty() && error.hint.is_none() =>
        {
            error.with_hint(types.join(", "))
        }
        _ => error,
    }
}

//! The mask `redact`: every value becomes a fixed one that depends on the column's type.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use minerva_resources::{MaskSpec, Node, Problem};

use super::constant::{constant_kernel, is_single, plain_constant};
use super::nullify::null_of;
use super::parameters::Parameters;
use super::text::{is_text, literal};
use super::{Kernel, Mask, MaskKind};
use crate::keys::KeyRing;
use crate::value::{coerce, written};

/// The operator `redact`.
#[derive(Debug)]
pub(super) struct RedactKind;

impl MaskKind for RedactKind {
    fn name(&self) -> &'static str {
        "redact"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_redact"
    }
    fn description(&self) -> &'static str {
        "Replaces text by `REDACTED`, numbers by 0, booleans by false, dates and timestamps by 1970-01-01 and \
         anything else by NULL. `replacement` is shown instead where it is given; the column's type must be able to \
         hold it."
    }
    fn types(&self) -> &'static str {
        "every type"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: redact\n  redact: {replacement: \"hidden\"}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["replacement"]);
        let replacement = parameters.node("replacement").cloned();
        if replacement.as_ref().is_some_and(|node| !is_single(node)) {
            parameters.wrong("replacement", "a single value");
        }
        parameters.finish(Some(Redact { replacement }))
    }
    fn plain(&self, column: &Expr, arguments: &[ScalarValue], data_type: &DataType) -> Option<Expr> {
        plain_constant(column, arguments, data_type)
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        data_type: &DataType,
        _keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        constant_kernel(arguments, data_type)
    }
}

#[derive(Debug)]
struct Redact {
    replacement: Option<Node>,
}

impl Mask for Redact {
    fn kind(&self) -> &'static dyn MaskKind {
        &RedactKind
    }
    fn describe(&self) -> String {
        match &self.replacement {
            None => "redact".to_owned(),
            Some(replacement) => format!("redact(replacement: {})", written(replacement)),
        }
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        match &self.replacement {
            Some(replacement) => Ok(vec![coerce(replacement, data_type)?]),
            None => Ok(Some(redacted(data_type)?)
                .filter(|value| !value.is_null())
                .into_iter()
                .collect()),
        }
    }
    fn makes_null(&self, data_type: &DataType) -> bool {
        self.replacement.is_none() && redacted(data_type).is_ok_and(|value| value.is_null())
    }
}

/// What stands for a value of a type when no replacement is given.
fn redacted(data_type: &DataType) -> Result<ScalarValue, String> {
    let text = literal("REDACTED");
    match data_type {
        text_type if is_text(text_type) => text
            .cast_to(text_type)
            .map_err(|_| "expected a column of text".to_owned()),
        DataType::Boolean => Ok(ScalarValue::Boolean(Some(false))),
        number if number.is_numeric() => {
            ScalarValue::new_zero(number).map_err(|_| "expected a column of numbers".to_owned())
        }
        DataType::Date32 => Ok(ScalarValue::Date32(Some(0))),
        DataType::Date64 => Ok(ScalarValue::Date64(Some(0))),
        DataType::Timestamp(..) => ScalarValue::Int64(Some(0))
            .cast_to(data_type)
            .map_err(|_| "expected a column of timestamps".to_owned()),
        other => null_of(other),
    }
}

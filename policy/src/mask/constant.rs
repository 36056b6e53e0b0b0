//! The mask `constant`: every value becomes the same one. Also the kernel that `redact` shares.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, new_null_array};
use datafusion::arrow::compute::{is_null, nullif};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, when};
use minerva_resources::{MaskSpec, Node, Problem, Value};

use super::parameters::Parameters;
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;
use crate::value::{coerce, written};

/// The operator `constant`.
#[derive(Debug)]
pub(super) struct ConstantKind;

impl MaskKind for ConstantKind {
    fn name(&self) -> &'static str {
        "constant"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_constant"
    }
    fn description(&self) -> &'static str {
        "Replaces every value by `value`, which the column's type must be able to hold."
    }
    fn types(&self) -> &'static str {
        "text, numbers, booleans, dates, times and timestamps"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: constant\n  constant: {value: \"***\"}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["value"]);
        let mask = parameters.required("value", "the value to show").and_then(|node| {
            let single = is_single(node);
            if !single {
                parameters.wrong("value", "a single value");
            }
            single.then(|| Constant { value: node.clone() })
        });
        parameters.finish(mask)
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

/// Whether a node is one value, not a list or a block.
pub(super) fn is_single(node: &Node) -> bool {
    !matches!(node.value, Value::List(_) | Value::Map(_) | Value::Null)
}

#[derive(Debug)]
struct Constant {
    value: Node,
}

impl Mask for Constant {
    fn kind(&self) -> &'static dyn MaskKind {
        &ConstantKind
    }
    fn describe(&self) -> String {
        format!("constant(value: {})", written(&self.value))
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        Ok(vec![coerce(&self.value, data_type)?])
    }
}

/// Makes the kernel that puts its only argument in the place of every value; NULL when there is none.
pub(super) fn constant_kernel(arguments: &[ScalarValue], data_type: &DataType) -> Result<Arc<dyn Kernel>, String> {
    match arguments {
        [] => Ok(Arc::new(ConstantKernel {
            value: super::nullify::null_of(data_type)?,
        })),
        [value] => Ok(Arc::new(ConstantKernel {
            value: of_type(value, data_type)?,
        })),
        _ => Err("the mask has one value".to_owned()),
    }
}

/// A literal argument as a value of a type. Types that a plan cannot carry arrive as the next wider one.
pub(super) fn of_type(value: &ScalarValue, data_type: &DataType) -> Result<ScalarValue, String> {
    let found = value
        .cast_to(data_type)
        .ok()
        .filter(|value| !value.is_null() && value.data_type() == *data_type);
    found.ok_or_else(|| format!("expected a value of type `{data_type}`"))
}

/// What that kernel does, as an expression.
pub(super) fn plain_constant(column: &Expr, arguments: &[ScalarValue], data_type: &DataType) -> Option<Expr> {
    match arguments {
        [] => Some(Expr::Literal(super::nullify::null_of(data_type).ok()?, None)),
        [value] => {
            let value = Expr::Literal(of_type(value, data_type).ok()?, None);
            when(column.clone().is_not_null(), value).end().ok()
        }
        _ => None,
    }
}

#[derive(Debug)]
struct ConstantKernel {
    value: ScalarValue,
}

impl Kernel for ConstantKernel {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        if self.value.is_null() {
            return Ok(new_null_array(values.data_type(), values.len()));
        }
        let constant = self.value.to_array_of_size(values.len())?;
        if values.logical_null_count() == 0 {
            return Ok(constant);
        }
        Ok(nullif(&constant, &is_null(values)?)?)
    }
}

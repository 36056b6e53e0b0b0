//! The mask `nullify`: every value becomes NULL, and the column is not even read.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use minerva_resources::{MaskSpec, Problem};

use super::constant::{constant_kernel, plain_constant};
use super::parameters::Parameters;
use super::{Kernel, Mask, MaskKind};
use crate::keys::KeyRing;

/// The operator `nullify`.
#[derive(Debug)]
pub(super) struct NullifyKind;

impl MaskKind for NullifyKind {
    fn name(&self) -> &'static str {
        "nullify"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_nullify"
    }
    fn description(&self) -> &'static str {
        "Replaces every value by NULL."
    }
    fn types(&self) -> &'static str {
        "every type"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: nullify"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        Parameters::new(spec, &[]).finish(Some(Nullify))
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

/// NULL of a type.
pub(super) fn null_of(data_type: &DataType) -> Result<ScalarValue, String> {
    ScalarValue::try_new_null(data_type).map_err(|_| "expected a column of a type that can be NULL".to_owned())
}

#[derive(Debug)]
struct Nullify;

impl Mask for Nullify {
    fn kind(&self) -> &'static dyn MaskKind {
        &NullifyKind
    }
    fn describe(&self) -> String {
        "nullify".to_owned()
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        null_of(data_type).map(|_| vec![])
    }
    fn makes_null(&self, _data_type: &DataType) -> bool {
        true
    }
    fn literal(&self, data_type: &DataType) -> Option<ScalarValue> {
        // A literal of a nested type does not keep every name inside it on its way to a worker.
        if data_type.is_nested() {
            None
        } else {
            null_of(data_type).ok()
        }
    }
}

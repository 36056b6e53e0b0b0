//! The mask `pass_through`: no mask. A policy with it is an exemption that outranks others by its priority.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use minerva_resources::{MaskSpec, Problem};

use super::parameters::Parameters;
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;

/// The operator's name.
pub(super) const NAME: &str = "pass_through";

/// The operator `pass_through`.
#[derive(Debug)]
pub(super) struct PassThroughKind;

impl MaskKind for PassThroughKind {
    fn name(&self) -> &'static str {
        NAME
    }
    fn function(&self) -> &'static str {
        "minerva_mask_pass_through"
    }
    fn description(&self) -> &'static str {
        "Shows the value as it is: an exemption for the users it selects, where its priority number is lower than \
         that of every other mask that matches. On a tie the other mask wins."
    }
    fn types(&self) -> &'static str {
        "every type"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: pass_through"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        Parameters::new(spec, &[]).finish(Some(PassThrough))
    }
    fn plain(&self, column: &Expr, _arguments: &[ScalarValue], _data_type: &DataType) -> Option<Expr> {
        Some(column.clone())
    }
    fn kernel(
        &self,
        _arguments: &[ScalarValue],
        _data_type: &DataType,
        _keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        Ok(Arc::new(PassThroughKernel))
    }
}

#[derive(Debug)]
struct PassThrough;

impl Mask for PassThrough {
    fn kind(&self) -> &'static dyn MaskKind {
        &PassThroughKind
    }
    fn describe(&self) -> String {
        NAME.to_owned()
    }
    fn arguments(&self, _data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        Ok(vec![])
    }
}

#[derive(Debug)]
struct PassThroughKernel;

impl Kernel for PassThroughKernel {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        Ok(Arc::clone(values))
    }
}

//! The masks: what may stand after `operator:` in a data policy, one file each.
//!
//! A mask is read from a manifest, asked whether it fits a column's type, and written as a call of a function of
//! this crate with literal arguments, so that a plan can carry it to a worker by name. The function's work is done
//! by a `Kernel` over whole arrays. A mask keeps the column's type and keeps NULL; what goes wrong inside it is
//! told in a fixed text that carries no value. A key never stands in a plan: the literal is the secret's name.

mod bucket_date;
mod bucket_number;
mod constant;
mod expression;
mod function;
mod hash;
mod nested;
mod nullify;
mod parameters;
mod partial;
mod pass_through;
mod rand_pattern;
mod redact;
mod regex_replace;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod tokenize;

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ScalarUDF, Volatility};
use minerva_resources::{Location, MaskSpec, Node, Problem, Value, closest};

use crate::keys::KeyRing;
pub use function::{MaskFunctions, mask_functions};
pub(crate) use nested::{Nesting, join_path};

/// Every mask, in the order of the alphabet.
pub const MASKS: &[&dyn MaskKind] = &[
    &bucket_date::BucketDateKind,
    &bucket_number::BucketNumberKind,
    &constant::ConstantKind,
    &expression::ExpressionKind,
    &hash::HashKind,
    &nullify::NullifyKind,
    &partial::PartialKind,
    &pass_through::PassThroughKind,
    &rand_pattern::RandPatternKind,
    &redact::RedactKind,
    &regex_replace::RegexReplaceKind,
    &tokenize::TokenizeKind,
];

/// One mask operator: how it is written in a manifest and how its work is done.
pub trait MaskKind: Debug + Send + Sync {
    /// The operator's name in a manifest.
    fn name(&self) -> &'static str;
    /// The name of the function that does its work in a plan.
    fn function(&self) -> &'static str;
    /// What it does, in a sentence or two, for the documentation.
    fn description(&self) -> &'static str;
    /// The types of columns it fits, for the documentation.
    fn types(&self) -> &'static str;
    /// The `mask:` block of a policy that uses it.
    fn example(&self) -> &'static str;
    /// Reads the parameters; reports every problem.
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>>;
    /// Whether two calls with the same value may answer differently.
    fn volatility(&self) -> Volatility {
        Volatility::Immutable
    }
    /// The expression that the function is, over a column of this type, in words of SQL that sources may know; `None` when there is none. It cannot fail,
    /// and holds no key.
    fn plain(&self, _column: &Expr, _arguments: &[ScalarValue], _data_type: &DataType) -> Option<Expr> {
        None
    }
    /// Makes the worker for the function's literal arguments and the type of the values it will be given, which is
    /// never a dictionary. The error is for logs and tests; users are told a fixed text.
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        data_type: &DataType,
        keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String>;
}

/// A mask with its parameters, not yet bound to a column.
pub trait Mask: Debug + Send + Sync {
    /// The operator.
    fn kind(&self) -> &'static dyn MaskKind;
    /// The operator with its parameters, as `hash(algo: sha256)`. Two masks that describe themselves alike are the
    /// same mask.
    fn describe(&self) -> String;
    /// The function's literal arguments for values of this type, or what the mask expected instead of the type.
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String>;
    /// Whether a value that is not NULL may become NULL.
    fn makes_null(&self, _data_type: &DataType) -> bool {
        false
    }
    /// The one value that everything becomes, NULL included; then no function is called and the column is not read.
    fn literal(&self, _data_type: &DataType) -> Option<ScalarValue> {
        None
    }
    /// The name of the secret that holds its key.
    fn secret(&self) -> Option<&str> {
        None
    }
    /// The same mask under the key of a secret, if it can have one and its author said nothing of keys.
    fn keyed_by(&self, _secret: &str) -> Option<Arc<dyn Mask>> {
        None
    }
    /// The operator's name.
    fn name(&self) -> &'static str {
        self.kind().name()
    }
    /// Whether the mask can keep a column of this type.
    fn applies_to(&self, data_type: &DataType) -> bool {
        self.arguments(value_type(data_type)).is_ok()
    }
    /// Whether this is the mask that shows the value as it is.
    fn is_pass_through(&self) -> bool {
        self.name() == pass_through::NAME
    }
}

/// Masks whole arrays of one type.
pub trait Kernel: Debug + Send + Sync {
    /// The masked values: as many, of the same type, NULL where NULL was.
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed>;
    /// Whether applying it can fail for some value, so that only values of visible rows may be given to it.
    fn can_fail(&self) -> bool {
        false
    }
    /// Whether equal values may be masked differently.
    fn is_volatile(&self) -> bool {
        false
    }
}

/// A mask could not be applied. Carries nothing, so that no value can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

impl From<datafusion::arrow::error::ArrowError> for Failed {
    fn from(_: datafusion::arrow::error::ArrowError) -> Self {
        Self
    }
}

impl From<datafusion::error::DataFusionError> for Failed {
    fn from(_: datafusion::error::DataFusionError) -> Self {
        Self
    }
}

/// The operator of this name.
pub(crate) fn kind(name: &str) -> Option<&'static dyn MaskKind> {
    MASKS.iter().copied().find(|kind| kind.name() == name)
}

/// Reads a policy's `mask:` block.
pub(crate) fn read(spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
    let Some(kind) = kind(&spec.operator) else {
        let problem = Problem::new(
            spec.location.clone(),
            format!("unknown mask operator `{}`", spec.operator),
        );
        let names: Vec<_> = MASKS.iter().map(|kind| kind.name()).collect();
        return Err(vec![match closest(&spec.operator, names.iter().copied()) {
            Some(name) => problem.help(format!("did you mean `{name}`?")),
            None => problem.help(format!("expected one of `{}`", names.join("`, `"))),
        }]);
    };
    kind.read(spec)
}

/// The mask that hides a value of any type, for what a manifest at `location` says without naming a mask.
pub(crate) fn redact(location: &Location) -> Result<Arc<dyn Mask>, Problem> {
    let spec = MaskSpec {
        operator: redact::RedactKind.name().to_owned(),
        parameters: Node {
            value: Value::Null,
            line: location.line,
        },
        location: location.clone(),
    };
    read(&spec).map_err(|mut problems| match problems.pop() {
        Some(problem) => problem,
        None => Problem::new(location.clone(), "the mask `redact` cannot be made"),
    })
}

/// The type of the values of a dictionary or of runs; any other type is itself.
pub(crate) fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => value_type(values),
        DataType::RunEndEncoded(_, values) => value_type(values.data_type()),
        other => other,
    }
}

/// Every function that masks and filters compile to. See [`mask_functions`].
pub(crate) type Functions = Vec<Arc<ScalarUDF>>;

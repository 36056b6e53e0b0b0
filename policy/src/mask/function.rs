//! The functions that masks compile to: one for each operator, one for what lies inside a column, and the one that
//! evaluates a row filter's expression without ever telling a value.
//!
//! They are found by name on a worker. They are not for users: who could call them could try out guesses, so a
//! coordinator registers them for decoding plans only and keeps them out of what SQL text may name.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::nested::{kernel_at, split_path};
use super::text::text_argument;
use super::{Functions, Kernel, MASKS, Mask, MaskKind, kind};
use crate::keys::KeyRing;
use crate::row_filter::FilterFunction;
use crate::verdict::Compiled;

/// All that is told of a mask that fails.
const MASK_FAILED: &str = "a mask of this table could not be applied to one of its values";

/// How many kernels a function keeps ready.
const KERNELS_KEPT: usize = 64;

/// The functions that masks and row filters compile to, for the registries of a coordinator and of its workers.
///
/// Their arguments are columns and literals; a key is named, and looked up in `keys` where the function runs.
pub fn mask_functions(keys: &Arc<KeyRing>) -> Vec<Arc<ScalarUDF>> {
    MaskFunctions::new(keys).all
}

/// The functions, found by operator.
#[derive(Debug, Clone)]
pub struct MaskFunctions {
    all: Functions,
}

impl MaskFunctions {
    /// Makes the functions over a set of keys.
    pub fn new(keys: &Arc<KeyRing>) -> Self {
        let masks = MASKS
            .iter()
            .map(|kind| MaskFunction::new(Some(*kind), kind.function(), kind.volatility(), keys));
        let nested = [(NESTED, Volatility::Immutable), (NESTED_VOLATILE, Volatility::Volatile)]
            .map(|(name, volatility)| MaskFunction::new(None, name, volatility, keys));
        let mut all: Functions = masks
            .chain(nested)
            .map(|function| Arc::new(ScalarUDF::new_from_impl(function)))
            .collect();
        all.push(Arc::new(ScalarUDF::new_from_impl(FilterFunction::new())));
        Self { all }
    }

    /// The function of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        self.all.iter().find(|function| function.name() == name)
    }

    /// Compiles a mask for what lies at `path` below a column of type `column_type`, where the type is `leaf_type`.
    pub(crate) fn compile(
        &self,
        mask: &dyn Mask,
        path: &[String],
        column_type: &DataType,
        leaf_type: &DataType,
        keys: &KeyRing,
    ) -> Result<Compiled, String> {
        let leaf_type = super::value_type(leaf_type);
        let arguments = mask.arguments(leaf_type)?;
        // A kernel that cannot be made now could not be made on a worker either: the table must be closed at once.
        let kernel = |data_type: &DataType| mask.kind().kernel(&arguments, data_type, keys);
        kernel_at(column_type, path, &kernel)?;
        if path.is_empty()
            && let Some(value) = mask.literal(column_type)
        {
            return Ok(Compiled::Literal(value));
        }
        let (name, prefix) = if path.is_empty() {
            (mask.kind().function(), vec![])
        } else {
            let name = if mask.kind().volatility() == Volatility::Volatile {
                NESTED_VOLATILE
            } else {
                NESTED
            };
            let prefix = [mask.name().to_owned(), super::join_path(path)];
            (name, prefix.map(|text| ScalarValue::Utf8(Some(text))).to_vec())
        };
        let function = self.get(name).ok_or_else(|| format!("function `{name}` is missing"))?;
        Ok(Compiled::Call {
            function: Arc::clone(function),
            arguments: prefix.into_iter().chain(arguments).collect(),
        })
    }
}

/// The function that masks what lies inside a column: `(column, operator, path, arguments of the mask ...)`.
const NESTED: &str = "minerva_mask_nested";
/// The same for masks that answer differently each time.
const NESTED_VOLATILE: &str = "minerva_mask_nested_volatile";

/// A kernel, and the arguments it was made for.
type Made = (Vec<ScalarValue>, DataType, Arc<dyn Kernel>);

/// A mask as a scalar function: the value first, literals after it.
#[derive(Debug)]
struct MaskFunction {
    /// The operator, or none for the function whose second argument names it.
    kind: Option<&'static dyn MaskKind>,
    name: &'static str,
    keys: Arc<KeyRing>,
    signature: Signature,
    kernels: Mutex<Vec<Made>>,
}

impl MaskFunction {
    fn new(
        kind: Option<&'static dyn MaskKind>,
        name: &'static str,
        volatility: Volatility,
        keys: &Arc<KeyRing>,
    ) -> Self {
        Self {
            kind,
            name,
            keys: Arc::clone(keys),
            signature: Signature::variadic_any(volatility),
            kernels: Mutex::new(vec![]),
        }
    }

    fn kernel(&self, arguments: Vec<ScalarValue>, data_type: &DataType) -> Result<Arc<dyn Kernel>, String> {
        {
            let kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
            let found = kernels
                .iter()
                .find(|(key, made_for, _)| made_for == data_type && *key == arguments);
            if let Some((_, _, kernel)) = found {
                return Ok(Arc::clone(kernel));
            }
        }
        let kernel = self.make_kernel(&arguments, data_type)?;
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if kernels.len() >= KERNELS_KEPT {
            kernels.clear();
        }
        kernels.push((arguments, data_type.clone(), Arc::clone(&kernel)));
        Ok(kernel)
    }

    fn make_kernel(&self, arguments: &[ScalarValue], data_type: &DataType) -> Result<Arc<dyn Kernel>, String> {
        let (mask, path, rest) = match self.kind {
            Some(mask) => (mask, vec![], arguments),
            None => {
                let operator = text_argument(arguments, 0)?;
                let mask = kind(operator).ok_or_else(|| format!("unknown mask operator `{operator}`"))?;
                let path = split_path(text_argument(arguments, 1)?);
                (mask, path, arguments.get(2..).unwrap_or_default())
            }
        };
        kernel_at(data_type, &path, &|leaf| mask.kernel(rest, leaf, &self.keys))
    }
}

impl PartialEq for MaskFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && (Arc::ptr_eq(&self.keys, &other.keys) || self.keys == other.keys)
    }
}

impl Eq for MaskFunction {}

impl Hash for MaskFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for MaskFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments.first() {
            Some(data_type) => Ok(data_type.clone()),
            None => exec_err!("function `{}` needs the value to mask", self.name),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match arguments.arg_fields.first() {
            Some(field) => Ok(Arc::new(Field::new(self.name(), field.data_type().clone(), true))),
            None => exec_err!("function `{}` needs the value to mask", self.name),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut values = arguments.args.into_iter();
        let Some(column) = values.next() else {
            return exec_err!("function `{}` needs the value to mask", self.name);
        };
        let mut literals = vec![];
        for value in values {
            match value {
                ColumnarValue::Scalar(value) => literals.push(value),
                ColumnarValue::Array(_) => return exec_err!("{MASK_FAILED}"),
            }
        }
        let is_scalar = matches!(column, ColumnarValue::Scalar(_)) && self.signature.volatility != Volatility::Volatile;
        let array = column.into_array(if is_scalar { 1 } else { arguments.number_rows })?;
        let Ok(kernel) = self.kernel(literals, array.data_type()) else {
            return exec_err!("{MASK_FAILED}");
        };
        match kernel.apply(&array) {
            Ok(masked) if masked.data_type() == array.data_type() && masked.len() == array.len() => {
                if is_scalar {
                    return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&masked, 0)?));
                }
                Ok(ColumnarValue::Array(masked))
            }
            _ => exec_err!("{MASK_FAILED}"),
        }
    }
}

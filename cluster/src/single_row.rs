//! The value of a subquery that has one row at most.
//!
//! In: how many rows there were and the value of the first. Out: that value, or an error if there were several. Coordinator and workers know the
//! function by name, since plans travel with names only.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

static ONLY_ROW: LazyLock<[Arc<ScalarUDF>; 1]> = LazyLock::new(|| {
    [Arc::new(ScalarUDF::from(OnlyRow {
        signature: Signature::any(2, Volatility::Volatile),
    }))]
});

/// The function: a number of rows and the value of the first.
pub fn only_row() -> Arc<ScalarUDF> {
    let [only_row] = &*ONLY_ROW;
    Arc::clone(only_row)
}

/// What plans may name that came from [`only_row`].
pub(crate) fn functions() -> &'static [Arc<ScalarUDF>] {
    &*ONLY_ROW
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyRow {
    signature: Signature,
}

impl ScalarUDFImpl for OnlyRow {
    fn name(&self) -> &str {
        "only_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Int64, value] => Ok(value.clone()),
            _ => internal_err!("`only_row` takes a number of rows and a value, not {types:?}"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [rows, value] = args.args.as_slice() else {
            return internal_err!("`only_row` takes a number of rows and a value");
        };
        let several = match rows {
            ColumnarValue::Scalar(ScalarValue::Int64(rows)) => rows.is_some_and(|rows| rows > 1),
            ColumnarValue::Scalar(_) => false,
            ColumnarValue::Array(rows) => match rows.as_primitive_opt::<Int64Type>() {
                Some(rows) => rows.iter().flatten().any(|rows| rows > 1),
                None if rows.is_empty() => false,
                None => return internal_err!("`only_row` takes a number of rows, not {}", rows.data_type()),
            },
        };
        match several {
            true => exec_err!("a subquery that is used as a value has more than one row"),
            false => Ok(value.clone()),
        }
    }
}

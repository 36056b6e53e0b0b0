//! The mask `partial`: only the first and the last characters of a text are left.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions::expr_fn::{character_length, repeat, right, substring};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, cast, lit, when};
use minerva_resources::{MaskSpec, Problem};

use super::parameters::Parameters;
use super::text::{TEXT, count_argument, is_text, literal, map_text, text_argument};
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;

/// What stands for a character is longer than this in no plain expression: a text must not grow beyond what a source can hold.
const LONGEST_PLAIN: usize = 4;

fn concatenated(left: Expr, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), Operator::StringConcat, Box::new(right)))
}

/// The operator `partial`.
#[derive(Debug)]
pub(super) struct PartialKind;

impl MaskKind for PartialKind {
    fn name(&self) -> &'static str {
        "partial"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_partial"
    }
    fn description(&self) -> &'static str {
        "Leaves the first `keep_first` and the last `keep_last` characters of a text (0 where not given, at least \
         one of them must be) and puts `with` (`*` where not given) in the place of each other character. A text \
         that has no more characters than are kept is hidden whole."
    }
    fn types(&self) -> &'static str {
        "text"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: partial\n  partial: {keep_first: 1, keep_last: 4, with: \"*\"}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["keep_first", "keep_last", "with"]);
        if parameters.node("keep_first").is_none() && parameters.node("keep_last").is_none() {
            parameters.required("keep_first", "how many characters to leave; or `keep_last`");
        }
        let keep_first = parameters.count("keep_first").unwrap_or(0);
        let keep_last = parameters.count("keep_last").unwrap_or(0);
        let with = parameters.text("with").unwrap_or_else(|| "*".to_owned());
        parameters.finish(Some(Partial {
            keep_first,
            keep_last,
            with,
        }))
    }
    fn plain(&self, column: &Expr, arguments: &[ScalarValue], data_type: &DataType) -> Option<Expr> {
        let first = i32::try_from(count_argument(arguments, 0).ok()?).ok()?;
        let last = i32::try_from(count_argument(arguments, 1).ok()?).ok()?;
        let kept = first.checked_add(last)?;
        let with = text_argument(arguments, 2).ok()?;
        if *data_type == DataType::LargeUtf8 || with.is_empty() || with.len() > LONGEST_PLAIN {
            return None;
        }
        let length = || character_length(column.clone());
        let hidden = |count: Expr| repeat(lit(with), count);
        let mut shown = hidden(length() - lit(kept));
        if first > 0 {
            shown = concatenated(substring(column.clone(), lit(1_i64), lit(i64::from(first))), shown);
        }
        if last > 0 {
            shown = concatenated(shown, right(column.clone(), lit(i64::from(last))));
        }
        let mut cases = when(length().gt(lit(kept)), cast(shown, data_type.clone()));
        cases.otherwise(cast(hidden(length()), data_type.clone())).ok()
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        _data_type: &DataType,
        _keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        Ok(Arc::new(Partial {
            keep_first: count_argument(arguments, 0)?,
            keep_last: count_argument(arguments, 1)?,
            with: text_argument(arguments, 2)?.to_owned(),
        }))
    }
}

/// The mask and its kernel are the same three values.
#[derive(Debug)]
struct Partial {
    keep_first: usize,
    keep_last: usize,
    with: String,
}

impl Mask for Partial {
    fn kind(&self) -> &'static dyn MaskKind {
        &PartialKind
    }
    fn describe(&self) -> String {
        format!(
            "partial(keep_first: {}, keep_last: {}, with: {:?})",
            self.keep_first, self.keep_last, self.with
        )
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        if !is_text(data_type) {
            return Err(TEXT.to_owned());
        }
        let count = |count: usize| i64::try_from(count).map(|count| ScalarValue::Int64(Some(count)));
        let counts = [count(self.keep_first), count(self.keep_last)];
        let mut arguments = Vec::with_capacity(3);
        for count in counts {
            arguments.push(count.map_err(|error| error.to_string())?);
        }
        arguments.push(literal(&self.with));
        Ok(arguments)
    }
}

impl Kernel for Partial {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        map_text(values, |value, masked| {
            let length = value.chars().count();
            let kept = self.keep_first.saturating_add(self.keep_last);
            let (first, last) = if length > kept {
                (self.keep_first, self.keep_last)
            } else {
                (0, 0)
            };
            for (index, character) in value.chars().enumerate() {
                if index < first || index >= length - last {
                    masked.push(character);
                } else {
                    masked.push_str(&self.with);
                }
            }
            Ok(())
        })
    }
}

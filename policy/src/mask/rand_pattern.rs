//! The mask `rand_pattern`: every value becomes a text of the same shape with digits by chance.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Volatility;
use minerva_resources::{MaskSpec, Problem};
use rand::Rng;

use super::parameters::Parameters;
use super::text::{TEXT, is_text, literal, map_text, text_argument};
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;

/// The operator `rand_pattern`.
#[derive(Debug)]
pub(super) struct RandPatternKind;

impl MaskKind for RandPatternKind {
    fn name(&self) -> &'static str {
        "rand_pattern"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_rand_pattern"
    }
    fn description(&self) -> &'static str {
        "Replaces every value by `pattern`, in which each `#` is a digit by chance; other characters stand for \
         themselves. Two equal values are masked differently, and so is the same value in the next query."
    }
    fn types(&self) -> &'static str {
        "text"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: rand_pattern\n  rand_pattern: {pattern: \"####-###-####-##\"}"
    }
    fn volatility(&self) -> Volatility {
        Volatility::Volatile
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["pattern"]);
        let pattern = parameters.required_text("pattern", "a text in which each `#` becomes a digit by chance");
        parameters.finish(pattern.map(|pattern| RandPattern { pattern }))
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        _data_type: &DataType,
        _keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        Ok(Arc::new(RandPattern {
            pattern: text_argument(arguments, 0)?.to_owned(),
        }))
    }
}

/// The mask and its kernel are the same pattern.
#[derive(Debug)]
struct RandPattern {
    pattern: String,
}

impl Mask for RandPattern {
    fn kind(&self) -> &'static dyn MaskKind {
        &RandPatternKind
    }
    fn describe(&self) -> String {
        format!("rand_pattern(pattern: {:?})", self.pattern)
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        if !is_text(data_type) {
            return Err(TEXT.to_owned());
        }
        Ok(vec![literal(&self.pattern)])
    }
}

const DIGITS: [char; 10] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];

impl Kernel for RandPattern {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        let mut random = rand::rng();
        map_text(values, |_, masked| {
            for character in self.pattern.chars() {
                match character {
                    '#' => masked.extend(DIGITS.get(random.random_range(0..DIGITS.len()))),
                    other => masked.push(other),
                }
            }
            Ok(())
        })
    }
    fn is_volatile(&self) -> bool {
        true
    }
}

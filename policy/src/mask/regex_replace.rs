//! The mask `regex_replace`: what a pattern finds in a text is replaced.
//!
//! The pattern may look ahead and behind. One that needs too many steps for some value fails the statement with a
//! text that does not carry the value.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use fancy_regex::{Regex, RegexBuilder};
use minerva_resources::{MaskSpec, Problem};

use super::parameters::Parameters;
use super::text::{TEXT, is_text, literal, map_text, text_argument};
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;

/// How many steps back a pattern may take for one search in one value.
const BACKTRACK_LIMIT: usize = 100_000;
/// How large a compiled pattern may be, in bytes.
const SIZE_LIMIT: usize = 8 << 20;

/// The operator `regex_replace`.
#[derive(Debug)]
pub(super) struct RegexReplaceKind;

impl MaskKind for RegexReplaceKind {
    fn name(&self) -> &'static str {
        "regex_replace"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_regex_replace"
    }
    fn description(&self) -> &'static str {
        "Replaces every match of `pattern`, a regular expression that may use look-ahead and look-behind, by \
         `replacement` (nothing where not given; `$1` and `${name}` stand for groups, `$$` for a dollar sign). A \
         pattern that takes too long on some value fails the query without telling the value. What the pattern does \
         not match is shown."
    }
    fn types(&self) -> &'static str {
        "text"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: regex_replace\n  regex_replace: {pattern: \".{5}$\", replacement: xxxxx}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["pattern", "replacement"]);
        let pattern = parameters.required_text("pattern", "a regular expression");
        if let Some(Err(error)) = pattern.as_deref().map(compiled) {
            parameters.wrong("pattern", &format!("a regular expression: {error}"));
        }
        let replacement = parameters.text("replacement").unwrap_or_default();
        parameters.finish(pattern.map(|pattern| RegexReplace { pattern, replacement }))
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        _data_type: &DataType,
        _keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        let pattern = compiled(text_argument(arguments, 0)?)?;
        Ok(Arc::new(RegexKernel {
            pattern,
            replacement: text_argument(arguments, 1)?.to_owned(),
        }))
    }
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .backtrack_limit(BACKTRACK_LIMIT)
        .delegate_size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| error.to_string().replace('\n', " "))
}

#[derive(Debug)]
struct RegexReplace {
    pattern: String,
    replacement: String,
}

impl Mask for RegexReplace {
    fn kind(&self) -> &'static dyn MaskKind {
        &RegexReplaceKind
    }
    fn describe(&self) -> String {
        format!(
            "regex_replace(pattern: {:?}, replacement: {:?})",
            self.pattern, self.replacement
        )
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        if !is_text(data_type) {
            return Err(TEXT.to_owned());
        }
        Ok(vec![literal(&self.pattern), literal(&self.replacement)])
    }
}

#[derive(Debug)]
struct RegexKernel {
    pattern: Regex,
    replacement: String,
}

impl Kernel for RegexKernel {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        map_text(values, |value, masked| {
            let replaced = self
                .pattern
                .try_replacen(value, 0, self.replacement.as_str())
                .map_err(|_| Failed)?;
            masked.push_str(&replaced);
            Ok(())
        })
    }
    fn can_fail(&self) -> bool {
        true
    }
}

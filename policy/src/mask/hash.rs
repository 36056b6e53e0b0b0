//! The mask `hash`: text becomes the SHA-256 of itself, keyed where a secret is named.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use hmac::{Hmac, KeyInit, Mac};
use minerva_resources::{MaskSpec, Problem};
use sha2::{Digest, Sha256};

use super::parameters::Parameters;
use super::text::{TEXT, is_text, literal, map_text, push_lower_hex, text_argument};
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;

/// The operator `hash`.
#[derive(Debug)]
pub(super) struct HashKind;

impl MaskKind for HashKind {
    fn name(&self) -> &'static str {
        "hash"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_hash"
    }
    fn description(&self) -> &'static str {
        "Replaces text by its SHA-256 as 64 lower-case hexadecimal digits. Who can guess the values can look plain \
         hashes up: name a secret in `keySecret` and the hash is an HMAC-SHA256 under the secret's entry `key` (or \
         its only entry)."
    }
    fn types(&self) -> &'static str {
        "text"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: hash\n  hash: {algo: sha256, keySecret: masking}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["algo", "keySecret"]);
        if parameters.text("algo").is_some_and(|algorithm| algorithm != "sha256") {
            parameters.wrong("algo", "`sha256`, the only algorithm there is");
        }
        let secret = parameters.text("keySecret");
        parameters.finish(Some(Hash { secret }))
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        _data_type: &DataType,
        keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        match text_argument(arguments, 1) {
            Err(_) => Ok(Arc::new(HashKernel { keyed: None })),
            Ok(secret) => Ok(Arc::new(HashKernel {
                keyed: Some(keyed(secret, keys)?),
            })),
        }
    }
}

/// HMAC-SHA256 under the key of a secret, ready to be copied for each value.
pub(super) fn keyed(secret: &str, keys: &KeyRing) -> Result<Hmac<Sha256>, String> {
    let key = keys
        .key(secret)
        .ok_or_else(|| format!("secret `{secret}` is not known here"))?;
    Hmac::new_from_slice(key).map_err(|_| format!("secret `{secret}` holds no usable key"))
}

#[derive(Debug)]
struct Hash {
    secret: Option<String>,
}

impl Mask for Hash {
    fn kind(&self) -> &'static dyn MaskKind {
        &HashKind
    }
    fn describe(&self) -> String {
        match &self.secret {
            None => "hash(algo: sha256)".to_owned(),
            Some(secret) => format!("hash(algo: sha256, keySecret: {secret})"),
        }
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        if !is_text(data_type) {
            return Err(TEXT.to_owned());
        }
        Ok(std::iter::once("sha256")
            .chain(self.secret.as_deref())
            .map(literal)
            .collect())
    }
    fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }
}

struct HashKernel {
    keyed: Option<Hmac<Sha256>>,
}

impl std::fmt::Debug for HashKernel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HashKernel").finish_non_exhaustive()
    }
}

impl Kernel for HashKernel {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        map_text(values, |value, masked| {
            match &self.keyed {
                None => push_lower_hex(&Sha256::digest(value.as_bytes()), masked),
                Some(keyed) => {
                    let mut keyed = keyed.clone();
                    keyed.update(value.as_bytes());
                    push_lower_hex(&keyed.finalize().into_bytes(), masked);
                }
            }
            Ok(())
        })
    }
}

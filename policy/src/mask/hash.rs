//! The mask `hash`: text becomes the SHA-256 of itself, keyed where a secret is named.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions::expr_fn::{encode, sha256};
use datafusion::logical_expr::{Expr, cast, lit};
use hmac::{Hmac, KeyInit, Mac};
use minerva_resources::{MaskSpec, Problem};
use sha2::{Digest, Sha256};

use super::parameters::Parameters;
use super::text::{TEXT, is_text, literal, map_text, push_lower_hex, text_argument};
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::{DEFAULT_KEY, KeyRing};

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
         its only entry). Where a secret `mask-key` is declared, it is the key of every hash that names none; \
         `keyed: false` asks for a plain hash all the same."
    }
    fn types(&self) -> &'static str {
        "text"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: hash\n  hash: {algo: sha256, keySecret: masking}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["algo", "keySecret", "keyed"]);
        if parameters.text("algo").is_some_and(|algorithm| algorithm != "sha256") {
            parameters.wrong("algo", "`sha256`, the only algorithm there is");
        }
        let secret = parameters.text("keySecret");
        let keyed = parameters.node("keyed").map(|node| node.as_bool());
        match (keyed, &secret) {
            (Some(None), _) => parameters.wrong("keyed", "`true` or `false`"),
            (Some(Some(false)), Some(_)) => parameters.wrong("keyed", "`true` where `keySecret` names a key"),
            _ => {}
        }
        // Who asks for a key gets one, or an error that there is none.
        let asked = || (keyed == Some(Some(true))).then(|| DEFAULT_KEY.to_owned());
        parameters.finish(Some(Hash {
            secret: secret.or_else(asked),
            is_plain: keyed == Some(Some(false)),
        }))
    }
    fn plain(&self, column: &Expr, arguments: &[ScalarValue], data_type: &DataType) -> Option<Expr> {
        // With a key it is computed where the key is.
        let is_keyless = matches!(arguments, [_]) && is_text(data_type);
        is_keyless.then(|| cast(encode(sha256(column.clone()), lit("hex")), data_type.clone()))
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
    /// Whether the author wants no key, whatever there is.
    is_plain: bool,
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
    fn keyed_by(&self, secret: &str) -> Option<Arc<dyn Mask>> {
        (self.secret.is_none() && !self.is_plain).then(|| {
            Arc::new(Hash {
                secret: Some(secret.to_owned()),
                is_plain: false,
            }) as Arc<dyn Mask>
        })
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

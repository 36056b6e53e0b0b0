//! The mask `tokenize`: a value becomes a token, the same for the same value, so that joins still work.
//!
//! Text becomes 32 hexadecimal digits of a keyed hash. A whole number becomes another whole number of the same
//! type by a keyed permutation, so that no two numbers share a token.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use datafusion::common::ScalarValue;
use hmac::{Hmac, Mac};
use minerva_resources::{MaskSpec, Problem};
use sha2::Sha256;

use super::hash::keyed;
use super::parameters::Parameters;
use super::text::{is_text, literal, map_text, push_lower_hex, text_argument};
use super::{Failed, Kernel, Mask, MaskKind};
use crate::keys::KeyRing;

/// The operator `tokenize`.
#[derive(Debug)]
pub(super) struct TokenizeKind;

impl MaskKind for TokenizeKind {
    fn name(&self) -> &'static str {
        "tokenize"
    }
    fn function(&self) -> &'static str {
        "minerva_mask_tokenize"
    }
    fn description(&self) -> &'static str {
        "Replaces a value by a token under the key of the secret that `keySecret` names (its entry `key`, or its \
         only entry). Equal values get equal tokens wherever the same secret is used, so that columns of one type \
         can still be joined and counted. Text becomes 32 hexadecimal digits; a whole number becomes another whole \
         number of the same type, and no two numbers become the same."
    }
    fn types(&self) -> &'static str {
        "text and whole numbers"
    }
    fn example(&self) -> &'static str {
        "mask:\n  operator: tokenize\n  tokenize: {keySecret: masking}"
    }
    fn read(&self, spec: &MaskSpec) -> Result<Arc<dyn Mask>, Vec<Problem>> {
        let mut parameters = Parameters::new(spec, &["keySecret"]);
        let secret = parameters.required_text("keySecret", "the name of the secret that holds the key");
        parameters.finish(secret.map(|secret| Tokenize { secret }))
    }
    fn kernel(
        &self,
        arguments: &[ScalarValue],
        _data_type: &DataType,
        keys: &KeyRing,
    ) -> Result<Arc<dyn Kernel>, String> {
        let mut keyed = keyed(text_argument(arguments, 0)?, keys)?;
        // Tokens and hashes under one key must not be the same.
        keyed.update(b"minerva tokenize\0");
        Ok(Arc::new(TokenizeKernel { keyed }))
    }
}

#[derive(Debug)]
struct Tokenize {
    secret: String,
}

impl Mask for Tokenize {
    fn kind(&self) -> &'static dyn MaskKind {
        &TokenizeKind
    }
    fn describe(&self) -> String {
        format!("tokenize(keySecret: {})", self.secret)
    }
    fn arguments(&self, data_type: &DataType) -> Result<Vec<ScalarValue>, String> {
        if !is_text(data_type) && !data_type.is_integer() {
            return Err("expected a column of text or whole numbers".to_owned());
        }
        Ok(vec![literal(&self.secret)])
    }
    fn secret(&self) -> Option<&str> {
        Some(&self.secret)
    }
}

struct TokenizeKernel {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for TokenizeKernel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TokenizeKernel").finish_non_exhaustive()
    }
}

/// How often the two halves of a number are mixed into each other.
const ROUNDS: u8 = 10;

impl TokenizeKernel {
    /// A keyed permutation of the numbers of `bits` bits: a Feistel network whose round function is the keyed hash.
    fn permuted(&self, value: u64, bits: u32) -> u64 {
        let half = bits / 2;
        let mask = (1_u64 << half) - 1;
        let (mut left, mut right) = (value >> half & mask, value & mask);
        for round in 0..ROUNDS {
            let mut keyed = self.keyed.clone();
            keyed.update(&[u8::try_from(bits).unwrap_or_default(), round]);
            keyed.update(&right.to_le_bytes());
            let digest = keyed.finalize().into_bytes();
            let mixed = digest
                .iter()
                .take(8)
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            (left, right) = (right, (left ^ mixed) & mask);
        }
        left << half | right
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        values: &ArrayRef,
        bits: u32,
        number: impl Fn(T::Native) -> u64,
        native: impl Fn(u64) -> T::Native,
    ) -> Result<ArrayRef, Failed> {
        let values = values.as_primitive_opt::<T>().ok_or(Failed)?;
        let token = |value| Some(native(self.permuted(number(value), bits)));
        let masked: PrimitiveArray<T> = values.unary_opt(token);
        Ok(Arc::new(masked))
    }
}

impl Kernel for TokenizeKernel {
    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, Failed> {
        match values.data_type() {
            DataType::Int8 => self.numbers::<Int8Type>(values, 8, |n| u64::from(n as u8), |n| n as i8),
            DataType::Int16 => self.numbers::<Int16Type>(values, 16, |n| u64::from(n as u16), |n| n as i16),
            DataType::Int32 => self.numbers::<Int32Type>(values, 32, |n| u64::from(n as u32), |n| n as i32),
            DataType::Int64 => self.numbers::<Int64Type>(values, 64, |n| n as u64, |n| n as i64),
            DataType::UInt8 => self.numbers::<UInt8Type>(values, 8, u64::from, |n| n as u8),
            DataType::UInt16 => self.numbers::<UInt16Type>(values, 16, u64::from, |n| n as u16),
            DataType::UInt32 => self.numbers::<UInt32Type>(values, 32, u64::from, |n| n as u32),
            DataType::UInt64 => self.numbers::<UInt64Type>(values, 64, |n| n, |n| n),
            _ => map_text(values, |value, masked| {
                let mut keyed = self.keyed.clone();
                keyed.update(b"text");
                keyed.update(value.as_bytes());
                let digest = keyed.finalize().into_bytes();
                push_lower_hex(digest.get(..16).ok_or(Failed)?, masked);
                Ok(())
            }),
        }
    }
}

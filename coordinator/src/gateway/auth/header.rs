//! The header `authorization`: Basic or Bearer, to credentials.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use super::Credentials;
use crate::error::{Code, QueryError, Result};

/// The longest header that is looked at, in bytes: the longest token as a Basic password fits.
const LONGEST_HEADER: usize = 32 << 10;

/// Both spellings of base64 are in use: with padding (Java, C++) and without (Go).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Credentials {
    /// Reads the value of a header `authorization`.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS`, with a text that repeats nothing of it.
    pub fn from_header(header: &str) -> Result<Self> {
        let refused = |message: &str| Err(QueryError::new(Code::InvalidCredentials, message));
        if header.len() > LONGEST_HEADER {
            return refused("the header `authorization` is too long");
        }
        let (scheme, value) = header.trim().split_once(' ').unwrap_or((header, ""));
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") && !value.is_empty() {
            return Ok(Self::Bearer(value.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return refused("the header `authorization` starts with neither `Basic` nor `Bearer`");
        }
        let decoded = BASE64
            .decode(value)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((user, password)) => Ok(Self::Basic {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            None => refused("the header `authorization` is no valid Basic header; expected base64 of `user:key`"),
        }
    }
}

/// A key wrapped with a cluster's name, for drivers that cannot set headers.
#[derive(Deserialize)]
pub(super) struct WrappedToken {
    pub(super) token: String,
    #[serde(default)]
    pub(super) cluster: Option<String>,
}

/// What is inside a wrapped token, or the text itself.
pub(super) fn unwrap_token(text: &str) -> WrappedToken {
    let wrapped = BASE64.decode(text).ok();
    let wrapped = wrapped.and_then(|bytes| serde_json::from_slice::<WrappedToken>(&bytes).ok());
    wrapped.unwrap_or_else(|| WrappedToken {
        token: text.to_owned(),
        cluster: None,
    })
}

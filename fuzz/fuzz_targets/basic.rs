//! Any bytes as a header `authorization`: read or refused, and what is read is what was written; a refusal is one of three fixed texts.
//! `cargo +nightly fuzz run basic`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use minerva_coordinator::Credentials;

/// Neither scheme, a Basic header that is none, and one that is too long.
static REFUSALS: LazyLock<[String; 3]> = LazyLock::new(|| {
    let refusal = |header: &str| Credentials::from_header(header).unwrap_err().to_string();
    [refusal(""), refusal("Basic !"), refusal(&"x".repeat(40_000))]
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = std::str::from_utf8(bytes) else {
        return;
    };
    for header in [header.to_owned(), format!("Basic {header}"), format!("Bearer {header}")] {
        match Credentials::from_header(&header) {
            Ok(Credentials::Basic { user, .. }) => assert!(!user.contains(':')),
            Ok(Credentials::Bearer(token)) => assert!(header.contains(&token) && !token.is_empty()),
            Err(error) => assert!(REFUSALS.contains(&error.to_string())),
        }
    }
});

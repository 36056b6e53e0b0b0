//! Any bytes as a header `authorization`: read or refused, and what is read is what was written; a refusal repeats nothing of it.
//! `cargo +nightly fuzz run basic`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use minerva_coordinator::Credentials;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = std::str::from_utf8(bytes) else {
        return;
    };
    for header in [header.to_owned(), format!("Basic {header}"), format!("Bearer {header}")] {
        match Credentials::from_header(&header) {
            Ok(Credentials::Basic { user, .. }) => assert!(!user.contains(':')),
            Ok(Credentials::Bearer(token)) => assert!(header.contains(&token) && !token.is_empty()),
            Err(error) => {
                let value = header.split(' ').nth(1).unwrap_or_default();
                assert!(value.len() < 12 || !error.to_string().contains(value));
            }
        }
    }
});

//! Any bytes as a file of manifests: the loader must answer, whatever they are. `tests/manifests` is a good corpus to start from:
//! `cargo +nightly fuzz run manifests fuzz/corpus/manifests tests/manifests/good tests/manifests/bad`.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The folder does not exist, so that no file which a secret names is read.
    let _ = minerva_resources::load_bytes(Path::new("/nonexistent/fuzz.yaml"), bytes.to_vec(), &[]);
});

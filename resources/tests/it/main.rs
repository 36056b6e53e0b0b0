//! The crate as others see it: manifests good and bad, examples, documentation, hostile input, live reload.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod apply;
mod documentation;
mod hostile;
mod manifests;
mod reload;

use std::path::{Path, PathBuf};

/// A folder of the project.
fn project(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)
}

/// What a loader says of a text.
fn load_text(text: &str) -> Result<minerva_resources::ResourceSet, String> {
    minerva_resources::load_bytes(Path::new("f.yaml"), text.as_bytes().to_vec(), &[])
        .map_err(|problems| problems.to_string())
}

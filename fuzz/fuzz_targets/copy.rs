//! Any bytes, cut anywhere, as what PostgreSQL sends in answer to a binary `COPY`: the reader must answer, and the same
//! however they are cut. The first byte says how long the pieces are: `cargo +nightly fuzz run copy`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use minerva_connectors::CopyDecoder;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, bytes)) = bytes.split_first() else {
        return;
    };
    let read = |length: usize| {
        let mut decoder = CopyDecoder::of_every_type();
        for piece in bytes.chunks(length.max(1)) {
            decoder.push(piece)?;
        }
        decoder.finish()
    };
    assert_eq!(read(usize::from(*length)), read(bytes.len()));
});

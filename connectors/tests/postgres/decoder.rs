//! The reader of the binary COPY format: any bytes, cut anywhere, are answered and never end the program.

use minerva_connectors::CopyDecoder;
use proptest::prelude::*;

/// A good header, and rows that are good as far as their form goes.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        3 => Just(None),
        1 => prop::collection::vec(any::<u8>(), 0..24).prop_map(Some),
        // What a list of one dimension looks like.
        1 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..4).prop_map(|elements| {
            let mut bytes = Vec::new();
            for number in [1, 0, 23, elements.len() as i32, 1] {
                bytes.extend(number.to_be_bytes());
            }
            for element in elements {
                bytes.extend((element.len() as i32).to_be_bytes());
                bytes.extend(element);
            }
            Some(bytes)
        }),
    ];
    let row = prop::collection::vec(value, 34);
    prop::collection::vec(row, 0..6).prop_map(|rows| {
        let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for row in rows {
            bytes.extend((row.len() as i16).to_be_bytes());
            for value in row {
                match value {
                    Some(value) => {
                        bytes.extend((value.len() as i32).to_be_bytes());
                        bytes.extend(value);
                    }
                    None => bytes.extend((-1_i32).to_be_bytes()),
                }
            }
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    })
}

fn read(bytes: &[u8], cuts: &[usize]) -> Result<Vec<arrow::array::RecordBatch>, String> {
    let mut decoder = CopyDecoder::of_every_type();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at((*cuts.next().unwrap()).clamp(1, rest.len()));
        decoder.push(chunk)?;
        rest = after;
    }
    decoder.finish()
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1..50_usize) {
        let _ = read(&bytes, &[cut]);
    }

    #[test]
    fn cuts_make_no_difference(
        bytes in stream(),
        cuts in prop::collection::vec(1..40_usize, 1..8),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        prop_assert_eq!(read(&bytes, &[bytes.len()]), read(&bytes, &cuts));
        let mut bytes = bytes;
        let place = flip.0.index(bytes.len());
        bytes[place] ^= flip.1;
        prop_assert_eq!(read(&bytes, &[bytes.len()]), read(&bytes, &cuts));
    }

    #[test]
    fn what_is_cut_off_is_not_whole(bytes in stream(), at in any::<prop::sample::Index>()) {
        if read(&bytes, &[7]).is_ok() {
            prop_assert!(read(&bytes[..at.index(bytes.len())], &[7]).is_err());
            let more = [bytes.as_slice(), b"\0"].concat();
            prop_assert!(read(&more, &[7]).is_err());
        }
    }
}

#[test]
fn nothing_but_nulls_is_read() {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02ab".to_vec();
    for _ in 0..7 {
        bytes.extend(34_i16.to_be_bytes());
        bytes.extend([0xff; 4 * 34]);
    }
    bytes.extend((-1_i16).to_be_bytes());
    let batches = read(&bytes, &[5]).unwrap();
    assert_eq!(
        batches.iter().map(|batch| batch.num_rows()).collect::<Vec<_>>(),
        [3, 3, 1]
    );
    assert!(batches[0].columns().iter().all(|column| column.null_count() == 3));
}

#[test]
fn what_is_too_long_is_refused_before_it_is_there() {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(34_i16.to_be_bytes());
    bytes.extend([0xff; 4 * 16]);
    bytes.extend((256_i32 << 20).to_be_bytes());
    bytes.extend(b"abc");
    let fault = read(&bytes, &[5]).unwrap_err();
    assert_eq!(fault, "TooLong { column: 16, row: 1 }");
}

//! The masks of text: what they show, on every kind of text and in dictionaries.

use super::*;

#[tokio::test]
async fn masks_of_text_keep_every_kind_of_text() {
    let values = [
        Some("jane@example.com"),
        None,
        Some(""),
        Some("ünï"),
        Some("jane@example.com"),
        Some("00012"),
    ];
    let cases: [(&str, [&str; 6]); 7] = [
        (
            "{operator: partial, partial: {keep_first: 1, keep_last: 2}}",
            ["j*************om", "NULL", "", "***", "j*************om", "0**12"],
        ),
        (
            "{operator: partial, partial: {keep_last: 1, with: xy}}",
            [
                "xyxyxyxyxyxyxyxyxyxyxyxyxyxyxym",
                "NULL",
                "",
                "xyxyï",
                "xyxyxyxyxyxyxyxyxyxyxyxyxyxyxym",
                "xyxyxyxy2",
            ],
        ),
        (
            "{operator: redact}",
            ["REDACTED", "NULL", "REDACTED", "REDACTED", "REDACTED", "REDACTED"],
        ),
        (
            "{operator: constant, constant: {value: '-'}}",
            ["-", "NULL", "-", "-", "-", "-"],
        ),
        (
            "{operator: regex_replace, regex_replace: {pattern: '[a-z](?=.*@)', replacement: '#'}}",
            ["####@example.com", "NULL", "", "ünï", "####@example.com", "00012"],
        ),
        (
            "{operator: regex_replace, regex_replace: {pattern: '(.)@(.)', replacement: '${1}at$2'}}",
            ["janeatexample.com", "NULL", "", "ünï", "janeatexample.com", "00012"],
        ),
        (
            "{operator: expression, expression: \"concat(upper(left(value, 1)), '.')\"}",
            ["J.", "NULL", ".", "Ü.", "J.", "0."],
        ),
    ];
    for (operator, expected) in cases {
        for data_type in TEXT.into_iter().chain(TEXT.map(dictionary)) {
            assert_eq!(
                mask(operator, array(&data_type, &values)).await,
                expected,
                "{operator} on {data_type}"
            );
        }
    }
}

#[tokio::test]
async fn hashes_are_the_known_ones() {
    let plain = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for data_type in TEXT.into_iter().chain(TEXT.map(dictionary)) {
        let values = array(&data_type, &[Some("abc"), None, Some("abc")]);
        assert_eq!(
            mask("{operator: hash}", Arc::clone(&values)).await,
            [plain, "NULL", plain],
            "{data_type}"
        );
        let keyed = mask("{operator: hash, hash: {keySecret: masking}}", values).await;
        // HMAC-SHA256 of `abc` under `a key of sixteen bytes`.
        assert_eq!(keyed[0].len(), 64);
        assert_ne!(keyed[0], plain);
        assert_eq!((keyed[0].as_str(), keyed[1].as_str()), (keyed[2].as_str(), "NULL"));
    }
    let known = crate::mask::hash::keyed("k", &[("k".to_owned(), vec![0x0b; 20])].into_iter().collect()).unwrap();
    let digest = hmac::Mac::finalize(hmac::Mac::chain_update(known, b"Hi There")).into_bytes();
    assert_eq!(
        crate::mask::text::lower_hex(&digest),
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    );
}

#[tokio::test]
async fn tokens_are_equal_where_values_are_and_nowhere_else() {
    let operator = "{operator: tokenize, tokenize: {keySecret: masking}}";
    let text = mask(
        operator,
        array(&DataType::Utf8, &[Some("1"), Some("2"), None, Some("1")]),
    )
    .await;
    assert_eq!(
        (text[0].len(), text[0] == text[3], text[0] == text[1], text[2].as_str()),
        (32, true, false, "NULL")
    );
    assert_eq!(
        mask(operator, array(&DataType::Utf8View, &[Some("1")])).await[0],
        text[0]
    );
    let whole: Vec<String> = (0..256).map(|number| (number - 128).to_string()).collect();
    let whole: Vec<Option<&str>> = whole.iter().map(|text| Some(text.as_str())).collect();
    let mut tokens = mask(operator, array(&DataType::Int8, &whole)).await;
    assert_ne!(
        tokens,
        whole
            .iter()
            .flatten()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    );
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 256, "a permutation of all numbers of the type");
    for data_type in [
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
    ] {
        let tokens = mask(operator, array(&data_type, &[Some("7"), None, Some("8"), Some("7")])).await;
        assert!(
            tokens[0] == tokens[3] && tokens[0] != tokens[2] && tokens[1] == "NULL",
            "{data_type}: {tokens:?}"
        );
    }
}

#[tokio::test]
async fn patterns_of_chance_keep_their_shape_and_nothing_of_the_value() {
    let operator = "{operator: rand_pattern, rand_pattern: {pattern: '##-#x'}}";
    for data_type in TEXT.into_iter().chain(TEXT.map(dictionary)) {
        let values: Vec<_> = (0..100).map(|row| (row % 10 != 0).then_some("secret")).collect();
        let masked = mask(operator, array(&data_type, &values)).await;
        assert_eq!(masked.iter().filter(|value| *value == "NULL").count(), 10);
        for value in masked.iter().filter(|value| *value != "NULL") {
            let digits: Vec<bool> = value.chars().map(|character| character.is_ascii_digit()).collect();
            assert_eq!(digits, [true, true, false, true, false], "{value}");
        }
    }
}

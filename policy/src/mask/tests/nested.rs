//! Masks inside structs, lists, maps and dictionaries.

use super::*;

#[tokio::test]
async fn masks_reach_inside_structs_lists_and_maps() {
    let text = |values: &[Option<&str>]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let fields = Fields::from(vec![
        Field::new("a.b", DataType::Utf8, true),
        Field::new("n", DataType::Int32, false),
    ]);
    let inner = StructArray::new(
        fields.clone(),
        vec![
            text(&[Some("x"), None, Some("y")]),
            Arc::new(Int32Array::from(vec![1, 2, 3])),
        ],
        None,
    );
    let field = Arc::new(Field::new("item", DataType::Struct(fields), true));
    let list = ListArray::new(
        field,
        OffsetBuffer::new(vec![0, 2, 2, 3].into()),
        Arc::new(inner),
        Some(vec![true, false, true].into()),
    );
    // Sliced, so that a value which no row shows lies before the first offset.
    let list: ArrayRef = Arc::new(list.slice(1, 2));
    let policy = |columns: &str, operator: &str| {
        documents(&[
            EVERYTHING,
            SECRET,
            &mask_policy("p", 5, "users:id:**", columns, operator),
        ])
    };
    let masked = async |columns: &str, operator: &str, column: &ArrayRef| {
        let rules = rules(&policy(columns, operator));
        let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(column), true)]).unwrap();
        let governance = allowed(&rules, &person("tom", &[]), &batch.schema());
        let masked = run(&rules, &governance, &batch).await.unwrap();
        masked.column(0).to_data().validate_full().unwrap();
        assert_eq!(masked.column(0).data_type(), column.data_type());
        shown(masked.column(0))
    };
    let redact = "{operator: redact}";
    assert_eq!(
        masked("{names: [c.element.a.b]}", redact, &list).await,
        ["NULL", "[{a.b: REDACTED, n: 3}]"]
    );
    assert_eq!(
        masked("{names: [c.element.n]}", redact, &list).await,
        ["NULL", "[{a.b: y, n: 0}]"]
    );
    assert_eq!(masked("{names: [c.element]}", redact, &list).await, ["NULL", "[NULL]"]);
    assert_eq!(masked("{names: [c]}", redact, &list).await, ["NULL", "NULL"]);
    let constant = "{operator: constant, constant: {value: '7'}}";
    assert_eq!(
        masked("{names: [c]}", constant, &list).await,
        ["NULL", "[{a.b: 7, n: 7}]"]
    );
    let nullify = "{operator: nullify}";
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(&list), true)]).unwrap();
    let message = closed(
        &rules(&policy("{names: [c.element.n]}", nullify)),
        &person("tom", &[]),
        &batch.schema(),
    );
    assert!(
        message.contains("column `c.element.n` of type `Int32`: expected a part that can be NULL"),
        "{message}"
    );

    let entries = StructArray::new(
        Fields::from(vec![
            Field::new("keys", DataType::Utf8, false),
            Field::new("values", DataType::Utf8, true),
        ]),
        vec![text(&[Some("k"), Some("l")]), text(&[Some("v"), None])],
        None,
    );
    let entries_field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let map: ArrayRef = Arc::new(MapArray::new(
        entries_field,
        OffsetBuffer::new(vec![0, 2, 2].into()),
        entries,
        Some(vec![true, false].into()),
        false,
    ));
    assert_eq!(
        masked("{names: [c.value]}", redact, &map).await,
        ["{k: REDACTED, l: NULL}", "NULL"]
    );
    assert_eq!(
        masked(
            "{names: [c.key]}",
            "{operator: partial, partial: {keep_first: 0}}",
            &map
        )
        .await,
        ["{*: v, *: NULL}", "NULL"]
    );
    let chance = masked(
        "{names: [c.value]}",
        "{operator: rand_pattern, rand_pattern: {pattern: '#'}}",
        &map,
    )
    .await;
    assert!(
        chance[0].starts_with("{k: ")
            && chance[0].ends_with(", l: NULL}")
            && chance[0].len() == "{k: 1, l: NULL}".len(),
        "{chance:?}"
    );
}

#[tokio::test]
async fn a_dictionary_tells_nothing_by_its_keys_or_unused_values() {
    let values = array(
        &dictionary(DataType::Utf8),
        &[Some("hidden"), Some("b"), Some("c"), None, Some("b")],
    );
    let masked = try_mask("{operator: redact}", values.slice(1, 4)).await.unwrap();
    let masked = masked.as_dictionary::<Int8Type>();
    assert_eq!(masked.values().len(), 1, "one value for every row");
    assert!(masked.keys().iter().flatten().all(|key| key == 0));
    // The value that no row shows would make the pattern fail.
    let trap = "a".repeat(40) + "!";
    let values = array(&dictionary(DataType::Utf8), &[Some(&trap), Some("b")]);
    let evil = "{operator: regex_replace, regex_replace: {pattern: '(?:a|aa)+(?<=b)x', replacement: x}}";
    assert_eq!(mask(evil, values.slice(1, 1)).await, ["b"]);
}

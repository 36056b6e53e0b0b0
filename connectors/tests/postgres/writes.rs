//! What is written is what is read back, of every type that a column has; changes are for visible places only; and failures keep values.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float32Array, Int16Array, Int32Array, IntervalMonthDayNanoArray, ListArray, RecordBatch,
    StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, IntervalMonthDayNano, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use minerva_connectors::conformance::stream_of;
use minerva_connectors::{Error, ErrorKind, ROW_ID};

use crate::server::{Place, shared};

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let batch = concat_batches(&batches[0].schema(), batches).unwrap();
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = (batch.columns().iter())
        .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    let line = |row| {
        columns
            .iter()
            .map(|column| column.value(row).to_string())
            .collect::<Vec<_>>()
            .join("|")
    };
    (0..batch.num_rows()).map(line).collect()
}

async fn place(name: &str, statements: &str) -> Place {
    let place = shared().database(name, statements).await;
    let grants = "GRANT ALL ON SCHEMA public TO reader; GRANT ALL ON ALL TABLES IN SCHEMA public TO reader";
    place.admin.batch_execute(grants).await.unwrap();
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_read_back_as_it_was_written() {
    let place = place("written", "").await;
    let intervals = [Some(IntervalMonthDayNano::new(-14, 3, -5_000_001_000)), None];
    let texts = [Some(vec![Some("a\"b\\,{}"), None, Some("NULL"), Some("")]), None];
    let mut lists = arrow::array::ListBuilder::new(arrow::array::StringViewBuilder::new());
    for list in texts {
        match list {
            Some(list) => {
                list.into_iter().for_each(|text| lists.values().append_option(text));
                lists.append(true);
            }
            None => lists.append(false),
        }
    }
    let numbers =
        ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None, Some(-3)]), Some(vec![])]);
    let moments = vec![Some(-1), Some(1_700_000_000_000_001)];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("small", Arc::new(Int16Array::from(vec![Some(i16::MIN), None]))),
        ("plain", Arc::new(Int32Array::from(vec![Some(i32::MAX), None]))),
        (
            "float",
            Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::NEG_INFINITY)])),
        ),
        (
            "clock",
            Arc::new(Time64MicrosecondArray::from(vec![Some(86_399_999_999), Some(0)])),
        ),
        (
            "moment",
            Arc::new(TimestampMicrosecondArray::from(moments.clone()).with_timezone("UTC")),
        ),
        ("local", Arc::new(TimestampMicrosecondArray::from(moments))),
        ("span", Arc::new(IntervalMonthDayNanoArray::from(intervals.to_vec()))),
        ("numbers", Arc::new(numbers)),
        ("texts", Arc::new(lists.finish())),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap();
    let source = place.source().await;
    let writer = source.writer().unwrap();
    assert_eq!(writer.stored(&rows.schema()).unwrap().as_ref(), rows.schema().as_ref());
    let written = writer
        .create("public", "t", stream_of(&rows.schema(), vec![rows.clone()]))
        .await;
    assert_eq!(written.unwrap(), 2);
    let read = place.rows("t").await.unwrap();
    assert_eq!(read[0].schema().fields(), rows.schema().fields());
    assert_eq!(lines(&read), lines(&[rows]));
    for refused in [
        DataType::Struct(vec![Field::new("a", DataType::Int32, true)].into()),
        DataType::Duration(TimeUnit::Second),
        DataType::Decimal256(60, 2),
    ] {
        let error = writer
            .stored(&Schema::new(vec![Field::new("odd", refused, true)]))
            .unwrap_err();
        assert!(
            error.kind == ErrorKind::Unsupported && error.message.contains("`odd`"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_types_that_only_postgresql_has_are_written_as_texts() {
    let types = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (id serial, m mood, u uuid, i inet, j jsonb)";
    let place = place("texts", types).await;
    let text = |value: &str| -> ArrayRef { Arc::new(StringViewArray::from(vec![value])) };
    let uuid = "0b0e7e0a-0000-4000-8000-00000000000f";
    let row = [
        ("m", text("ok")),
        ("u", text(uuid)),
        ("i", text("10.0.0.1")),
        ("j", text("{\"a\": 1}")),
    ];
    let rows = RecordBatch::try_from_iter(row).unwrap();
    let source = place.source().await;
    let writer = source.writer().unwrap();
    // The user of the depot may not take the next number of the table's sequence, and is told no more than that.
    let refused = writer
        .append("public", "t", stream_of(&rows.schema(), vec![rows.clone()]))
        .await
        .unwrap_err();
    assert_eq!(Error::find(&refused).unwrap().kind, ErrorKind::Denied);
    place
        .admin
        .batch_execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO reader")
        .await
        .unwrap();
    assert_eq!(
        writer
            .append("public", "t", stream_of(&rows.schema(), vec![rows]))
            .await
            .unwrap(),
        1
    );
    let read = place.rows("t").await.unwrap();
    assert!(
        lines(&read)[0].ends_with(&format!("|ok|{uuid}|10.0.0.1|{{\"a\": 1}}")),
        "{:?}",
        lines(&read)
    );
    let bad = RecordBatch::try_from_iter([("m", text("secret mood"))]).unwrap();
    let refused = writer
        .append("public", "t", stream_of(&bad.schema(), vec![bad]))
        .await
        .unwrap_err();
    let error = Error::find(&refused).unwrap();
    assert!(
        error.kind == ErrorKind::BadValue && !error.to_string().contains("secret"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_partitions_are_changed_where_they_lie_and_views_are_not() {
    let place = place(
        "changed",
        "CREATE TABLE p (id int4, t text) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
         INSERT INTO p VALUES (1, 'a'), (2, 'b'), (11, 'c'); CREATE VIEW v AS SELECT * FROM p;
         CREATE TABLE kept (id int4); INSERT INTO kept VALUES (1), (2);
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER keep BEFORE DELETE ON kept FOR EACH ROW WHEN (OLD.id = 2) EXECUTE FUNCTION keep()",
    )
    .await;
    let source = place.source().await;
    let writer = source.writer().unwrap();
    let context = crate::server::context(&place.depots);
    let change = writer.change("public", "p").await.unwrap();
    let found = context.read_table(change.table()).unwrap().collect().await.unwrap();
    let found = concat_batches(&found[0].schema(), &found).unwrap();
    // Rows of different partitions may lie in the same place.
    let ids = found.column_by_name("id").unwrap().as_primitive::<Int32Type>();
    let chosen: Vec<usize> = (0..found.num_rows()).filter(|row| ids.value(*row) != 2).collect();
    let places = found.column_by_name(ROW_ID).unwrap().as_string_view();
    let places = StringViewArray::from_iter_values(chosen.iter().map(|row| places.value(*row)));
    let texts = StringViewArray::from_iter_values(chosen.iter().map(|row| format!("new {}", ids.value(*row))));
    let rows = RecordBatch::try_from_iter([
        (ROW_ID, Arc::new(places) as ArrayRef),
        ("t", Arc::new(texts) as ArrayRef),
    ])
    .unwrap();
    assert_eq!(change.update(vec![rows]).await.unwrap(), 2);
    let rows: Vec<String> = {
        let mut rows = lines(&place.rows("p").await.unwrap());
        rows.sort();
        rows
    };
    assert_eq!(rows, ["11|new 11", "1|new 1", "2|b"]);
    assert_eq!(
        writer.change("public", "v").await.unwrap_err().kind,
        ErrorKind::Unsupported
    );

    // A row that the database keeps makes the whole fail.
    let change = writer.change("public", "kept").await.unwrap();
    let found = context.read_table(change.table()).unwrap().collect().await.unwrap();
    let rows: Vec<RecordBatch> = found.iter().map(|batch| batch.project(&[1]).unwrap()).collect();
    assert_eq!(change.delete(rows).await.unwrap_err().kind, ErrorKind::Constraint);
    assert_eq!(place.ask::<i64>("SELECT count(*) FROM kept").await, 2);
    // A transaction that is left is undone, and lets go of the table.
    drop(writer.change("public", "kept").await.unwrap());
    let change = writer.change("public", "kept").await.unwrap();
    drop(change);
}

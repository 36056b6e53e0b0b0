//! Every format on every Arrow type, with NULLs.

mod types;

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, Int64Array, NullArray, StringArray, TimestampSecondArray},
    datatypes::{DataType, Field, Schema},
    ipc::reader::StreamReader,
};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tonic::codegen::Bytes;

use self::types::every_type;
use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn render(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut sink: Vec<u8> = Vec::new();
    let mut output = format.begin(&batches[0].schema(), &mut sink).unwrap();
    for batch in batches {
        output.write(batch).unwrap();
    }
    output.finish().unwrap();
    sink
}

fn text(format: Format, columns: Vec<(&str, ArrayRef)>) -> String {
    String::from_utf8(render(format, &[batch(columns)])).unwrap()
}

#[test]
fn every_type_in_every_text_format() {
    for (name, array, texts, jsons) in every_type() {
        let column = || vec![("c", ArrayRef::clone(&array))];
        let lines = |format| text(format, column()).lines().map(str::to_owned).collect::<Vec<_>>();

        let vertical: Vec<String> = texts
            .iter()
            .flat_map(|text| ["-[ RECORD ]".to_owned(), format!("c | {text}")])
            .collect();
        let found: Vec<String> = lines(Format::Vertical)
            .iter()
            .map(|line| {
                if line.starts_with("-[ RECORD ") {
                    "-[ RECORD ]".to_owned()
                } else {
                    line.clone()
                }
            })
            .collect();
        assert_eq!(found, vertical, "{name}");

        let aligned: Vec<String> = lines(Format::Aligned)
            .iter()
            .skip(2)
            .map(|line| line.trim().to_owned())
            .collect();
        let count = format!("({} rows)", texts.len());
        assert_eq!(
            aligned,
            texts.iter().copied().chain([count.as_str()]).collect::<Vec<_>>(),
            "{name}"
        );

        let json: Vec<String> = jsons.iter().map(|json| format!("{{\"c\":{json}}}")).collect();
        let found = lines(Format::Json);
        assert_eq!(found, json, "{name}");
        found.iter().for_each(|line| {
            assert!(
                serde_json::from_str::<serde_json::Value>(line).is_ok(),
                "{name}: {line}"
            )
        });

        let csv: Vec<String> = texts
            .iter()
            .map(|text| match *text {
                "NULL" => String::new(),
                "" => "\"\"".to_owned(),
                text if text.contains(['"', ',']) => format!("\"{}\"", text.replace('"', "\"\"")),
                text => text.to_owned(),
            })
            .collect();
        assert_eq!(lines(Format::Csv), [vec!["c".to_owned()], csv].concat(), "{name}");

        let tsv: Vec<String> = texts
            .iter()
            .map(|text| {
                if *text == "NULL" {
                    "\\N".to_owned()
                } else {
                    text.replace('\\', "\\\\")
                }
            })
            .collect();
        assert_eq!(lines(Format::Tsv), [vec!["c".to_owned()], tsv].concat(), "{name}");

        assert_eq!(lines(Format::Markdown).len(), texts.len() + 2, "{name}");
    }
}

fn plain_runs() -> RecordBatch {
    batch(vec![("c", Arc::new(Int64Array::from(vec![Some(7), Some(7), None])))])
}

#[test]
fn every_type_in_every_columnar_format() {
    for (name, array, _, _) in every_type() {
        let batch = batch(vec![("c", array)]);
        let bytes = render(Format::Arrow, &[batch.clone(), batch.clone()]);
        let read: Vec<_> = StreamReader::try_new(bytes.as_slice(), None)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(read, [batch.clone(), batch.clone()], "{name}");

        let mut sink: Vec<u8> = Vec::new();
        let written = Format::Parquet
            .begin(&batch.schema(), &mut sink)
            .and_then(|mut output| {
                output.write(&batch)?;
                output.finish()
            });
        match written {
            // Parquet has no such types, and says so.
            Err(error) => {
                assert!(
                    ["interval in all", "run ends", "union", "list_view", "large_list_view"].contains(&name)
                        || name.starts_with("duration"),
                    "{name}: {error}"
                );
                assert!(!error.is_broken_pipe());
            }
            Ok(()) => {
                let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(sink))
                    .unwrap()
                    .build()
                    .unwrap();
                let read: Vec<_> = reader.collect::<Result<_, _>>().unwrap();
                // Runs come back as the plain values.
                let expected = if name == "run ends" {
                    vec![plain_runs()]
                } else {
                    vec![batch]
                };
                assert_eq!(read, expected, "{name}");
            }
        }
    }
}

fn people() -> Vec<(&'static str, ArrayRef)> {
    vec![
        (
            "name",
            Arc::new(StringArray::from(vec![
                Some("Zoë, \"Z\""),
                Some("東京|x"),
                None,
                Some("tab\there\\\nend"),
            ])),
        ),
        (
            "air_time",
            Arc::new(Int64Array::from(vec![Some(5), Some(-12_345), None, Some(0)])),
        ),
        (
            "note",
            Arc::new(StringArray::from(vec![
                Some(""),
                None,
                Some("<b> & _c_"),
                Some("\u{1b}[31mred"),
            ])),
        ),
    ]
}

#[test]
fn aligned() {
    assert_eq!(
        text(Format::Aligned, people()),
        concat!(
            " name            | air_time | note\n",
            "-----------------+----------+-------------\n",
            " Zoë, \"Z\"        |        5 | \n",
            " 東京|x          |   -12345 | NULL\n",
            " NULL            |     NULL | <b> & _c_\n",
            " tab\\there\\\\nend |        0 | \\x1B[31mred\n",
            "(4 rows)\n",
        )
    );
    assert_eq!(
        text(Format::Aligned, vec![("n", Arc::new(Int64Array::from(vec![7])))]),
        " n\n---\n 7\n(1 row)\n"
    );
    assert_eq!(
        text(
            Format::Aligned,
            vec![("n", Arc::new(Int64Array::from(Vec::<i64>::new())))]
        ),
        " n\n---\n(0 rows)\n"
    );
}

#[test]
fn aligned_goes_on_with_the_widths_of_the_first_rows() {
    let narrow = batch(vec![("n", Arc::new(Int64Array::from(vec![1; 1500])))]);
    let wide = batch(vec![("n", Arc::new(Int64Array::from(vec![123_456])))]);
    let text = String::from_utf8(render(Format::Aligned, &[narrow, wide])).unwrap();
    assert!(text.starts_with(" n\n---\n 1\n"), "{text}");
    assert!(text.ends_with(" 1\n 123456\n(1501 rows)\n"), "{text}");
}

#[test]
fn vertical() {
    assert_eq!(
        text(
            Format::Vertical,
            people()
                .into_iter()
                .map(|(name, array)| (name, array.slice(0, 2)))
                .collect()
        ),
        concat!(
            "-[ RECORD 1 ]\n",
            "name     | Zoë, \"Z\"\n",
            "air_time | 5\n",
            "note     | \n",
            "-[ RECORD 2 ]\n",
            "name     | 東京|x\n",
            "air_time | -12345\n",
            "note     | NULL\n",
        )
    );
    assert_eq!(
        text(Format::Vertical, vec![("n", Arc::new(NullArray::new(0)))]),
        "(0 rows)\n"
    );
}

#[test]
fn csv_and_tsv() {
    assert_eq!(
        text(Format::Csv, people()),
        concat!(
            "name,air_time,note\n",
            "\"Zoë, \"\"Z\"\"\",5,\"\"\n",
            "東京|x,-12345,\n",
            ",,<b> & _c_\n",
            "\"tab\there\\\nend\",0,\u{1b}[31mred\n",
        )
    );
    assert_eq!(
        text(Format::Tsv, people()),
        concat!(
            "name\tair_time\tnote\n",
            "Zoë, \"Z\"\t5\t\n",
            "東京|x\t-12345\t\\N\n",
            "\\N\t\\N\t<b> & _c_\n",
            "tab\\there\\\\\\nend\t0\t\u{1b}[31mred\n",
        )
    );
}

#[test]
fn json() {
    assert_eq!(
        text(Format::Json, people()),
        concat!(
            "{\"name\":\"Zoë, \\\"Z\\\"\",\"air_time\":5,\"note\":\"\"}\n",
            "{\"name\":\"東京|x\",\"air_time\":-12345,\"note\":null}\n",
            "{\"name\":null,\"air_time\":null,\"note\":\"<b> & _c_\"}\n",
            "{\"name\":\"tab\\there\\\\\\nend\",\"air_time\":0,\"note\":\"\\u001b[31mred\"}\n",
        )
    );
}

#[test]
fn markdown() {
    assert_eq!(
        text(Format::Markdown, people()),
        concat!(
            "| name | air_time | note |\n",
            "| --- | ---: | --- |\n",
            "| Zoë, \"Z\" | 5 |  |\n",
            "| 東京\\|x | -12345 | NULL |\n",
            "| NULL | NULL | &lt;b> &amp; \\_c\\_ |\n",
            "| tab\\there\\\\<br>end | 0 | \\x1B\\[31mred |\n",
        )
    );
}

#[test]
fn formats_without_rows_keep_their_columns() {
    let none = || vec![("a", Arc::new(Int64Array::from(Vec::<i64>::new())) as ArrayRef)];
    for (format, expected) in [
        (Format::Csv, "a\n"),
        (Format::Tsv, "a\n"),
        (Format::Json, ""),
        (Format::Markdown, "| a |\n| ---: |\n"),
    ] {
        assert_eq!(text(format, none()), expected, "{format:?}");
    }
    let schema = Schema::new(vec![Field::new("a", DataType::Int64, true)]);
    let stream = render(Format::Arrow, &[batch(none())]);
    assert_eq!(
        *StreamReader::try_new(stream.as_slice(), None).unwrap().schema(),
        schema
    );
    let file = render(Format::Parquet, &[batch(none())]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
    assert_eq!(reader.schema().fields(), schema.fields());
}

/// A reader that has gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_format_knows_a_broken_pipe() {
    for format in Format::value_variants() {
        let batch = batch(people());
        let mut sink = Closed;
        let written = format.begin(&batch.schema(), &mut sink).and_then(|mut output| {
            output.write(&batch)?;
            output.finish()
        });
        let error = written.unwrap_err();
        assert!(error.is_broken_pipe(), "{format:?}: {error}");
    }
}

#[test]
fn what_cannot_be_shown_is_an_error() {
    let batch = batch(vec![("c", Arc::new(TimestampSecondArray::from(vec![i64::MAX])))]);
    let mut sink: Vec<u8> = Vec::new();
    let error = Format::Csv
        .begin(&batch.schema(), &mut sink)
        .unwrap()
        .write(&batch)
        .unwrap_err();
    assert_eq!(error.to_string(), "a timestamp in the result is out of range");
}

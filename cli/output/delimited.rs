//! CSV and TSV: a line for each row, with a header.
//!
//! CSV quotes as RFC 4180 says and tells an empty string (`""`) from NULL (nothing); its lines end with a line feed. TSV quotes nothing and
//! escapes instead, as PostgreSQL's COPY and MySQL do; its NULL is `\N`.

use arrow::{array::RecordBatch, datatypes::Schema};

use super::{Output, OutputError, Sink, value::write_text};

/// How fields are told apart.
pub(super) struct Dialect {
    delimiter: char,
    null: &'static str,
    write_field: fn(&str, &mut String),
}

pub(super) const CSV: Dialect = Dialect {
    delimiter: ',',
    null: "",
    write_field: write_quoted,
};
pub(super) const TSV: Dialect = Dialect {
    delimiter: '\t',
    null: "\\N",
    write_field: write_escaped,
};

/// Lines being written.
pub(super) struct Delimited<'a> {
    dialect: Dialect,
    sink: &'a mut Sink,
}

impl<'a> Delimited<'a> {
    pub(super) fn begin(dialect: Dialect, schema: &Schema, sink: &'a mut Sink) -> Result<Self, OutputError> {
        let mut header = String::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                header.push(dialect.delimiter);
            }
            (dialect.write_field)(field.name(), &mut header);
        }
        writeln!(sink, "{header}")?;
        Ok(Self { dialect, sink })
    }
}

impl Output for Delimited<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        let (mut text, mut lines) = (String::new(), String::new());
        for row in 0..batch.num_rows() {
            for (index, array) in batch.columns().iter().enumerate() {
                if index > 0 {
                    lines.push(self.dialect.delimiter);
                }
                text.clear();
                if write_text(array, row, &mut text)? {
                    (self.dialect.write_field)(&text, &mut lines);
                } else {
                    lines.push_str(self.dialect.null);
                }
            }
            lines.push('\n');
        }
        self.sink.write_all(lines.as_bytes())?;
        Ok(self.sink.flush()?)
    }

    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        Ok(())
    }
}

fn write_quoted(text: &str, out: &mut String) {
    if !text.is_empty() && !text.contains(['"', ',', '\n', '\r']) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.push_str("\"\"");
        }
        out.push_str(part);
    }
    out.push('"');
}

fn write_escaped(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            other => out.push(other),
        }
    }
}

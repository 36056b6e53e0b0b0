//! VERTICAL: a line for each value, for rows that are wider than a screen.

use arrow::{array::RecordBatch, datatypes::Schema};

use super::{
    Output, OutputError, Sink,
    value::write_text,
    width::{width, write_printable},
};

/// Records being written.
pub(super) struct Vertical<'a> {
    sink: &'a mut Sink,
    /// The columns' names, filled up to the widest.
    names: Vec<String>,
    width: usize,
    rows: u64,
}

impl<'a> Vertical<'a> {
    pub(super) fn begin(schema: &Schema, sink: &'a mut Sink) -> Self {
        let mut names = Vec::new();
        for field in schema.fields() {
            let mut name = String::new();
            write_printable(field.name(), &mut name);
            names.push(name);
        }
        let widest = names.iter().map(|name| width(name)).max().unwrap_or_default();
        for name in &mut names {
            name.extend(std::iter::repeat_n(' ', widest.saturating_sub(width(name))));
        }
        Self {
            sink,
            names,
            width: widest,
            rows: 0,
        }
    }
}

impl Output for Vertical<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        let (mut text, mut record) = (String::new(), String::new());
        for row in 0..batch.num_rows() {
            self.rows += 1;
            record.clear();
            record.push_str(&format!("-[ RECORD {} ]", self.rows));
            let rule = (self.width + 3).saturating_sub(record.len());
            record.extend(std::iter::repeat_n('-', rule));
            record.push('\n');
            for (name, array) in self.names.iter().zip(batch.columns()) {
                record.push_str(name);
                record.push_str(" | ");
                text.clear();
                if write_text(array, row, &mut text)? {
                    write_printable(&text, &mut record);
                } else {
                    record.push_str("NULL");
                }
                record.push('\n');
            }
            self.sink.write_all(record.as_bytes())?;
        }
        Ok(self.sink.flush()?)
    }

    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        if self.rows == 0 {
            writeln!(self.sink, "(0 rows)")?;
        }
        Ok(())
    }
}

//! JSON: a line for each row, an object with the columns in their order.

use arrow::{array::RecordBatch, datatypes::Schema};

use super::{
    Output, OutputError, Sink,
    value::{write_json, write_json_string},
};

/// Objects being written.
pub(super) struct Json<'a> {
    sink: &'a mut Sink,
    /// The columns' names as JSON strings.
    names: Vec<String>,
}

impl<'a> Json<'a> {
    pub(super) fn begin(schema: &Schema, sink: &'a mut Sink) -> Self {
        let mut names = Vec::new();
        for field in schema.fields() {
            let mut name = String::new();
            write_json_string(field.name(), &mut name);
            names.push(name);
        }
        Self { sink, names }
    }
}

impl Output for Json<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        let mut lines = String::new();
        for row in 0..batch.num_rows() {
            lines.push('{');
            for (index, (name, array)) in self.names.iter().zip(batch.columns()).enumerate() {
                if index > 0 {
                    lines.push(',');
                }
                lines.push_str(name);
                lines.push(':');
                write_json(array, row, &mut lines)?;
            }
            lines.push_str("}\n");
        }
        self.sink.write_all(lines.as_bytes())?;
        Ok(self.sink.flush()?)
    }

    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        Ok(())
    }
}

//! MARKDOWN: a table for documents, as GitHub reads it.

use arrow::{array::RecordBatch, datatypes::Schema};

use super::{
    Output, OutputError, Sink,
    value::{is_number, write_text},
    width::write_printable,
};

/// A table being written.
pub(super) struct Markdown<'a> {
    sink: &'a mut Sink,
}

impl<'a> Markdown<'a> {
    pub(super) fn begin(schema: &Schema, sink: &'a mut Sink) -> Result<Self, OutputError> {
        let (mut header, mut rule) = (String::from("|"), String::from("|"));
        for field in schema.fields() {
            header.push(' ');
            write_cell(field.name(), &mut header);
            header.push_str(" |");
            rule.push_str(if is_number(field.data_type()) {
                " ---: |"
            } else {
                " --- |"
            });
        }
        writeln!(sink, "{header}\n{rule}")?;
        Ok(Self { sink })
    }
}

impl Output for Markdown<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        let (mut text, mut lines) = (String::new(), String::new());
        for row in 0..batch.num_rows() {
            lines.push('|');
            for array in batch.columns() {
                lines.push(' ');
                text.clear();
                if write_text(array, row, &mut text)? {
                    write_cell(&text, &mut lines);
                } else {
                    lines.push_str("NULL");
                }
                lines.push_str(" |");
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

/// Appends text so that it stays in its cell and is no markup.
fn write_cell(text: &str, out: &mut String) {
    let mut previous = ' ';
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        let next = rest.peek().copied().unwrap_or(' ');
        match character {
            '\r' if next == '\n' => {}
            '\r' | '\n' => out.push_str("<br>"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '_' if previous.is_alphanumeric() && next.is_alphanumeric() => out.push('_'),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' => out.extend(['\\', character]),
            other => write_printable(other.encode_utf8(&mut [0; 4]), out),
        }
        previous = character;
    }
}

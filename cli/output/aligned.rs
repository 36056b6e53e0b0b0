//! ALIGNED: a table for people.
//!
//! Widths come from the first rows; later ones that are wider push their line out, which keeps memory bounded and the result flowing.

use arrow::{array::RecordBatch, datatypes::Schema};
use minerva_coordinator::sql_type;

use super::{
    Output, OutputError, Sink,
    value::{is_number, write_text},
    width::{width, write_printable},
};

/// How many rows, and how many bytes of them, are looked at before the first is written.
const MEASURED_ROWS: usize = 1000;
const MEASURED_BYTES: usize = 8 << 20;

/// A table being written.
pub(super) struct Aligned<'a> {
    sink: &'a mut Sink,
    columns: Vec<Column>,
    /// The rows that wait for their widths; `None` once the header is written.
    waiting: Option<Vec<Vec<String>>>,
    waiting_bytes: usize,
    rows: u64,
    line: String,
}

struct Column {
    name: String,
    /// The type's name, where types are shown.
    type_name: Option<String>,
    width: usize,
    is_right: bool,
}

impl<'a> Aligned<'a> {
    pub(super) fn begin(schema: &Schema, sink: &'a mut Sink) -> Self {
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let mut name = String::new();
                write_printable(field.name(), &mut name);
                Column {
                    width: width(&name),
                    name,
                    type_name: None,
                    is_right: is_number(field.data_type()),
                }
            })
            .collect();
        Self {
            sink,
            columns,
            waiting: Some(Vec::new()),
            waiting_bytes: 0,
            rows: 0,
            line: String::new(),
        }
    }

    /// Says the types of the columns below their names.
    pub(super) fn with_types(mut self, schema: &Schema) -> Self {
        for (column, field) in self.columns.iter_mut().zip(schema.fields()) {
            let mut name = String::new();
            write_printable(&sql_type(field.data_type()), &mut name);
            column.width = column.width.max(width(&name));
            column.type_name = Some(name);
        }
        self
    }

    /// Writes the header and the rows that waited for it.
    fn settle(&mut self) -> Result<(), OutputError> {
        let Some(waiting) = self.waiting.take() else {
            return Ok(());
        };
        for row in &waiting {
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(width(cell));
            }
        }
        let names: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        self.write_row(&names)?;
        let types: Option<Vec<String>> = self.columns.iter().map(|column| column.type_name.clone()).collect();
        if let Some(types) = types {
            self.write_row(&types)?;
        }
        let rule: Vec<String> = self.columns.iter().map(|column| "-".repeat(column.width + 2)).collect();
        writeln!(self.sink, "{}", rule.join("+"))?;
        waiting.iter().try_for_each(|row| self.write_row(row))
    }

    fn write_row(&mut self, cells: &[String]) -> Result<(), OutputError> {
        self.line.clear();
        for (index, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
            self.line.push_str(if index > 0 { " | " } else { " " });
            let padding = column.width.saturating_sub(width(cell));
            if column.is_right {
                self.line.extend(std::iter::repeat_n(' ', padding));
            }
            self.line.push_str(cell);
            if !column.is_right && index + 1 < self.columns.len() {
                self.line.extend(std::iter::repeat_n(' ', padding));
            }
        }
        self.line.push('\n');
        Ok(self.sink.write_all(self.line.as_bytes())?)
    }
}

impl Output for Aligned<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(self.columns.len());
            for array in batch.columns() {
                text.clear();
                let mut cell = String::new();
                if write_text(array, row, &mut text)? {
                    write_printable(&text, &mut cell);
                } else {
                    cell.push_str("NULL");
                }
                cells.push(cell);
            }
            self.rows += 1;
            match &mut self.waiting {
                None => self.write_row(&cells)?,
                Some(waiting) => {
                    self.waiting_bytes += cells.iter().map(String::len).sum::<usize>();
                    waiting.push(cells);
                    if waiting.len() >= MEASURED_ROWS || self.waiting_bytes >= MEASURED_BYTES {
                        self.settle()?;
                    }
                }
            }
        }
        Ok(self.sink.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), OutputError> {
        self.settle()?;
        let noun = if self.rows == 1 { "row" } else { "rows" };
        Ok(writeln!(self.sink, "({} {noun})", self.rows)?)
    }
}

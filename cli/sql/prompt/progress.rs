//! A line on how far a statement is, while its rows are awaited.
//!
//! In: the query's id, and what the server answers to `minerva.query.progress`. Out: one line on standard error, written over again and erased before
//! anything else is written. Deliberately absent: any of it where standard error is no terminal.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::client::Connection;

/// What is done by then needs no line.
const FIRST_AFTER: Duration = Duration::from_millis(400);
/// A server that does not answer by then is busy: the line says what it said last.
const THEN_EVERY: Duration = Duration::from_millis(250);

/// The line of one statement; all clones are the same line.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    /// To ask with, once there is one.
    connection: Option<Connection>,
    is_connected: bool,
    query_id: Option<String>,
    is_shown: bool,
    is_over: bool,
}

impl Progress {
    /// No line at all.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// Shows a line from now on, as wide as the terminal at most.
    pub(super) fn begin(columns: usize) -> Self {
        let progress = Self::none();
        if io::stderr().is_terminal() {
            tokio::spawn(progress.clone().run(columns));
        }
        progress
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a connection, and this one beside it to ask with.
    pub(super) fn connected(&self, connection: Connection) {
        let mut line = self.line();
        line.connection = Some(connection);
        line.is_connected = true;
    }

    /// The server has planned the statement, and gave it this id.
    pub(super) fn planned(&self, query_id: &[u8]) {
        self.line().query_id = std::str::from_utf8(query_id).ok().map(str::to_owned);
    }

    /// Takes the line away for good.
    pub(super) fn erase(&self) {
        let mut line = self.line();
        line.is_over = true;
        if std::mem::take(&mut line.is_shown) {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }

    async fn run(self, columns: usize) {
        let start = Instant::now();
        let mut answer = None;
        tokio::time::sleep(FIRST_AFTER).await;
        while self.show(start.elapsed(), answer.as_ref(), columns) {
            let next = tokio::time::sleep(THEN_EVERY);
            if let Ok(Some(answered)) = tokio::time::timeout(THEN_EVERY, self.ask()).await {
                answer = Some(answered);
            }
            next.await;
        }
    }

    /// What the server says, if it can be asked.
    async fn ask(&self) -> Option<Value> {
        let (mut connection, query_id) = {
            let line = self.line();
            (line.connection.as_ref()?.another(), line.query_id.clone()?)
        };
        let arguments = json!({"query_id": query_id});
        connection.call("minerva.query.progress", &arguments).await.ok()
    }

    /// Shows the line; false when it is over.
    fn show(&self, elapsed: Duration, answer: Option<&Value>, columns: usize) -> bool {
        let mut line = self.line();
        if line.is_over {
            return false;
        }
        line.is_shown = true;
        let doing = match (line.is_connected, &line.query_id) {
            (false, _) => "connecting",
            (true, None) => "planning",
            (true, Some(_)) => "running",
        };
        let text = text(doing, elapsed, answer);
        // The last column stays free, or the terminal begins another row.
        let text: String = text.chars().take(columns.saturating_sub(1)).collect();
        let _ = io::stderr().write_all(format!("\r{text}\x1b[K").as_bytes());
        true
    }
}

/// What the line says.
fn text(doing: &str, elapsed: Duration, answer: Option<&Value>) -> String {
    let number = |name: &str| {
        answer
            .and_then(|answer| answer.get(name)?.as_u64())
            .filter(|number| *number > 0)
    };
    let state = answer.and_then(|answer| answer.get("state")?.as_str());
    let state = state.map_or_else(|| doing.to_owned(), str::to_lowercase);
    let mut parts = vec![format!("{state} {:.1} s", elapsed.as_secs_f64())];
    if let Some(stages) = number("stages") {
        parts.push(format!("{stages} {}", if stages == 1 { "stage" } else { "stages" }));
    }
    match (number("input_rows"), number("input_bytes")) {
        (Some(rows), Some(bytes)) => parts.push(format!("{} rows ({}) in", grouped(rows), size(bytes))),
        (Some(rows), None) => parts.push(format!("{} rows in", grouped(rows))),
        _ => {}
    }
    if let Some(rows) = number("output_rows") {
        let bytes = number("output_bytes").unwrap_or_default();
        parts.push(format!("{} rows ({}) out", grouped(rows), size(bytes)));
    }
    parts.push("Ctrl-C cancels".to_owned());
    parts.join(", ")
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.5 GiB`.
fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{size:.1} {unit}")
            };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let after = Duration::from_millis(2_340);
        assert_eq!(text("planning", after, None), "planning 2.3 s, Ctrl-C cancels");
        assert_eq!(text("running", after, None), "running 2.3 s, Ctrl-C cancels");
        let answer = json!({
            "state": "RUNNING", "stages": 3, "input_rows": 1_234_567, "input_bytes": 3_u64 << 29, "output_rows": 12, "output_bytes": 100,
        });
        assert_eq!(
            text("running", after, Some(&answer)),
            "running 2.3 s, 3 stages, 1,234,567 rows (1.5 GiB) in, 12 rows (100 B) out, Ctrl-C cancels"
        );
        assert_eq!(
            text("running", after, Some(&json!({"state": "QUEUED", "stages": 0}))),
            "queued 2.3 s, Ctrl-C cancels"
        );
    }
}

//! What is kept of a query, and of an attempt to log in that failed.
//!
//! In: the life of a query. Out: a row of the file, and JSON for those who may see it. Deliberately absent: values of rows and of parameters.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

/// The record of one query. Moments are milliseconds since 1970, times are milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QueryRecord {
    pub(crate) query_id: String,
    pub(crate) user: String,
    /// Who acted in the user's name, where somebody did.
    pub(crate) impersonator: Option<String>,
    pub(crate) door: String,
    pub(crate) client_address: String,
    pub(crate) source: Option<String>,
    pub(crate) cluster: String,
    pub(crate) statement_kind: Option<String>,
    pub(crate) query: String,
    /// JSON: what was decided about each table, and the columns read of it.
    pub(crate) tables: String,
    pub(crate) resources_version: Option<String>,
    pub(crate) state: String,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) queued: i64,
    pub(crate) planning: i64,
    pub(crate) elapsed: i64,
    pub(crate) created: i64,
    pub(crate) ended: Option<i64>,
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
}

/// Attempts to log in that failed in the same way within one minute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Attempt {
    /// The beginning of the minute.
    pub(crate) minute: i64,
    pub(crate) door: String,
    /// The address without its port.
    pub(crate) client_address: String,
    /// Who it was said to be; nobody has proved it.
    pub(crate) user: Option<String>,
    pub(crate) error_code: String,
    pub(crate) error_message: String,
}

impl Attempt {
    /// The same without what tells it from others, for when there are too many.
    pub(crate) fn of_several(self) -> Self {
        Self {
            client_address: "several".to_owned(),
            user: None,
            error_message: "too many different attempts in one minute".to_owned(),
            ..self
        }
    }
}

impl QueryRecord {
    /// The tables as this reader may know them. What a user was denied does not exist for them, and neither do the policies that denied it.
    pub(crate) fn tables_for(&self, sees_all: bool) -> String {
        if sees_all {
            return self.tables.clone();
        }
        let Ok(Value::Array(tables)) = serde_json::from_str(&self.tables) else {
            return "[]".to_owned();
        };
        let known = tables.into_iter().filter_map(|mut table| {
            if table.get("decision").is_some_and(|decision| decision == "DENIED") {
                return None;
            }
            if let Some(table) = table.as_object_mut() {
                table.remove("access");
                table.remove("hidden");
            }
            Some(table)
        });
        Value::Array(known.collect()).to_string()
    }

    /// The record as this reader may see it, under the names of the columns of `gateway.public.query_audit`.
    pub(crate) fn to_json(&self, sees_all: bool) -> Value {
        let tables: Value = serde_json::from_str(&self.tables_for(sees_all)).unwrap_or_default();
        json!({
            "query_id": self.query_id,
            "user": self.user,
            "impersonator": self.impersonator,
            "door": self.door,
            "client_address": self.client_address,
            "source": self.source,
            "cluster": self.cluster,
            "statement_kind": self.statement_kind,
            "query": self.query,
            "tables": tables,
            "resources_version": self.resources_version,
            "state": self.state,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "queued_time_ms": self.queued,
            "analysis_time_ms": self.planning,
            "elapsed_time_ms": self.elapsed,
            "created": written(self.created),
            "end": self.ended.map(written),
            "output_rows": self.rows,
            "output_bytes": self.bytes,
        })
    }
}

/// A moment as people write it: `2026-07-05T09:16:22.123Z`.
fn written(millis: i64) -> String {
    let moment = DateTime::<Utc>::from_timestamp_millis(millis).unwrap_or_default();
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads a moment: RFC 3339, or milliseconds since 1970.
pub(crate) fn moment(text: &str) -> Option<i64> {
    text.parse()
        .ok()
        .or_else(|| Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_does_not_learn_what_was_denied_and_an_operator_does() {
        let record = QueryRecord {
            tables: r#"[{"table":"a","decision":"DENIED","access":["p"]},{"table":"b","decision":"ALLOWED","access":["q"],"hidden":["c"]}]"#
                .to_owned(),
            ..QueryRecord::default()
        };
        assert_eq!(record.tables_for(false), r#"[{"decision":"ALLOWED","table":"b"}]"#);
        assert_eq!(record.tables_for(true), record.tables);
        assert_eq!(QueryRecord::default().tables_for(false), "[]");
    }

    #[test]
    fn moments_are_read_as_they_are_written() {
        assert_eq!(moment(&written(1_782_551_782_123)), Some(1_782_551_782_123));
        assert_eq!(moment("17"), Some(17));
        assert_eq!(moment("yesterday"), None);
    }
}

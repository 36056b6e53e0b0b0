//! Messages of Flight's session actions, which arrow-flight does not generate, and the newer form of one that it does.
//!
//! Field numbers and types are those of `Flight.proto` and `FlightSql.proto`; the tests compare bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::{Message, Oneof};

/// A value of a session option; no value unsets the option.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub(super) option_value: Option<OptionValue>,
}

/// The kinds of values.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum OptionValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    TextList(StringListValue),
}

/// A list of strings.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StringListValue {
    #[prost(string, repeated, tag = "1")]
    pub(super) values: Vec<String>,
}

/// The request of `SetSessionOptions`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) session_options: BTreeMap<String, SessionOptionValue>,
}

/// Why an option was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum ErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

/// The error of one option.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct SetSessionOptionError {
    #[prost(enumeration = "ErrorValue", tag = "1")]
    pub(super) value: i32,
}

/// The answer of `SetSessionOptions`: the options that were not set.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SetSessionOptionsResult {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) errors: BTreeMap<String, SetSessionOptionError>,
}

/// The answer of `GetSessionOptions`; its request is empty.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) session_options: BTreeMap<String, SessionOptionValue>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum CloseStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

/// The answer of `CloseSession`; its request is empty.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct CloseSessionResult {
    #[prost(enumeration = "CloseStatus", tag = "1")]
    pub(super) status: i32,
}

/// The answer of `CreatePreparedStatement`, with the field that says whether the statement answers rows.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct CreatePreparedStatementResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prepared_statement_handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    pub(super) is_update: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(value: OptionValue) -> SessionOptionValue {
        SessionOptionValue {
            option_value: Some(value),
        }
    }

    /// Bytes as the reference implementation writes them: a map entry is a message {1: key, 2: value} in field 1.
    #[test]
    fn bytes_are_those_of_the_official_definitions() {
        let request = SetSessionOptionsRequest {
            session_options: BTreeMap::from([("k".to_owned(), option(OptionValue::Text("v".to_owned())))]),
        };
        assert_eq!(request.encode_to_vec(), b"\x0a\x08\x0a\x01k\x12\x03\x0a\x01v");

        assert_eq!(option(OptionValue::Bool(true)).encode_to_vec(), b"\x10\x01");
        assert_eq!(
            option(OptionValue::Int64(-2)).encode_to_vec(),
            b"\x19\xfe\xff\xff\xff\xff\xff\xff\xff"
        );
        assert_eq!(
            option(OptionValue::Double(1.0)).encode_to_vec(),
            b"\x21\x00\x00\x00\x00\x00\x00\xf0\x3f"
        );
        let list = StringListValue {
            values: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(
            option(OptionValue::TextList(list)).encode_to_vec(),
            b"\x2a\x06\x0a\x01a\x0a\x01b"
        );

        let error = SetSessionOptionError {
            value: ErrorValue::InvalidValue.into(),
        };
        let result = SetSessionOptionsResult {
            errors: BTreeMap::from([("k".to_owned(), error)]),
        };
        assert_eq!(result.encode_to_vec(), b"\x0a\x07\x0a\x01k\x12\x02\x08\x02");
        assert_eq!(
            CloseSessionResult {
                status: CloseStatus::Closed.into()
            }
            .encode_to_vec(),
            b"\x08\x01"
        );

        let prepared = CreatePreparedStatementResult {
            prepared_statement_handle: Bytes::from_static(b"h"),
            dataset_schema: Bytes::from_static(b"d"),
            parameter_schema: Bytes::from_static(b"p"),
            is_update: Some(false),
        };
        assert_eq!(prepared.encode_to_vec(), b"\x0a\x01h\x12\x01d\x1a\x01p\x20\x00");
    }

    #[test]
    fn what_was_written_is_read_and_an_empty_value_is_none() {
        let options = BTreeMap::from([
            ("catalog".to_owned(), option(OptionValue::Text("flights".to_owned()))),
            ("gone".to_owned(), SessionOptionValue { option_value: None }),
        ]);
        let request = SetSessionOptionsRequest {
            session_options: options.clone(),
        };
        assert_eq!(
            SetSessionOptionsRequest::decode(request.encode_to_vec().as_slice())
                .unwrap()
                .session_options,
            options
        );
        let answer = GetSessionOptionsResult {
            session_options: options.clone(),
        };
        assert_eq!(
            GetSessionOptionsResult::decode(answer.encode_to_vec().as_slice())
                .unwrap()
                .session_options,
            options
        );
    }
}

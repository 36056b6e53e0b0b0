//! Turns what an author wrote in a policy into a value of a column's type, exactly or not at all.
//!
//! In: a node of a manifest or a text; a type. Out: a literal, or what was expected. A text that the type can only
//! hold after rounding is refused, because a filter on a rounded value shows other rows than the author meant.
//! Also reads `${user.id}` and `${user.attributes.NAME}` in such texts.

use std::sync::Arc;

use datafusion::arrow::array::{Array, StringArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use minerva_resources::{Node, Value};

/// Looks up what `${...}` stands for, by what stands between the braces.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A text in which `${user.id}` and `${user.attributes.NAME}` stand for what the principal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

impl Template {
    /// Reads a text; a variable that no principal can have is an error.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![];
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else {
                return Err(format!("`{text}` has a `${{` without a `}}`"));
            };
            let attribute = name
                .strip_prefix("user.attributes.")
                .is_some_and(|attribute| !attribute.is_empty());
            if name != "user.id" && !attribute {
                return Err(format!(
                    "`${{{name}}}` is not known; expected `${{user.id}}` or `${{user.attributes.NAME}}`"
                ));
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Variable(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Whether it is the same for everyone.
    pub(crate) fn is_fixed(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The text for one principal; `escape` is applied to what the principal puts in.
    pub(crate) fn expand(&self, lookup: Lookup<'_>, escape: impl Fn(String) -> String) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Variable(name) => match lookup(name) {
                    Some(value) => text.push_str(&escape(value)),
                    None => return Err(format!("the user has no `{}`", name.trim_start_matches("user."))),
                },
            }
        }
        Ok(text)
    }
}

/// How a node is written, for messages and descriptions.
pub(crate) fn written(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(value) => format!("{value:?}"),
        Value::List(nodes) => format!("[{}]", nodes.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Map(_) => "a block".to_owned(),
    }
}

/// The literal of type `data_type` that a node stands for, or what was expected of the column or of the node.
pub(crate) fn coerce(node: &Node, data_type: &DataType) -> Result<ScalarValue, String> {
    if let DataType::Dictionary(key, values) = data_type {
        return Ok(ScalarValue::Dictionary(key.clone(), Box::new(coerce(node, values)?)));
    }
    let is_text = crate::mask::text::is_text(data_type);
    match &node.value {
        Value::Text(text) => coerce_text(text, data_type),
        Value::Bool(_) if *data_type != DataType::Boolean => {
            Err(format!("expected a value of type `{data_type}`, not {}", written(node)))
        }
        Value::Integer(_) | Value::Float(_) if is_text => {
            Err(format!("expected a text, not {}; write it in quotes", written(node)))
        }
        Value::Integer(_) | Value::Float(_) if !data_type.is_numeric() => {
            Err(format!("expected a value of type `{data_type}`, not {}", written(node)))
        }
        Value::Bool(value) => coerce_text(&value.to_string(), data_type),
        Value::Integer(value) => coerce_text(&value.to_string(), data_type),
        Value::Float(value) => coerce_text(&value.to_string(), data_type),
        Value::Null | Value::List(_) | Value::Map(_) => Err(format!("expected a single value, not {}", written(node))),
    }
}

/// The literal of type `data_type` that a text stands for.
pub(crate) fn coerce_text(text: &str, data_type: &DataType) -> Result<ScalarValue, String> {
    let expected = || format!("expected a value of type `{data_type}`, not `{text}`");
    match data_type {
        DataType::Dictionary(key, values) => {
            return Ok(ScalarValue::Dictionary(
                key.clone(),
                Box::new(coerce_text(text, values)?),
            ));
        }
        DataType::Boolean if !matches!(text, "true" | "false") => return Err(expected()),
        DataType::Boolean
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..) => {}
        number if number.is_numeric() => return coerce_number(text, number).ok_or_else(expected),
        _ => {
            return Err(format!(
                "expected a column of text, numbers, booleans, dates or times, not of `{data_type}`"
            ));
        }
    }
    let value = cast_text(text, data_type).ok_or_else(expected)?;
    let is_exact = match data_type {
        DataType::Timestamp(unit, zone) if *unit != TimeUnit::Nanosecond => {
            let finest = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
            match cast_text(text, &finest) {
                // Outside the years that nanoseconds can count, the finer digits cannot be checked.
                None => true,
                Some(finest) => value.cast_to(&finest.data_type()).is_ok_and(|value| value == finest),
            }
        }
        _ => true,
    };
    if is_exact {
        Ok(value)
    } else {
        Err(format!("{}, which has finer digits", expected()))
    }
}

fn coerce_number(text: &str, data_type: &DataType) -> Option<ScalarValue> {
    let text = text.trim();
    let is_number = |character: char| character.is_ascii_digit() || "+-.eE".contains(character);
    if text.is_empty() || !text.chars().all(is_number) {
        return None;
    }
    if data_type.is_floating() {
        let value: f64 = text.parse().ok()?;
        let value = ScalarValue::Float64(Some(value).filter(|value| value.is_finite()))
            .cast_to(data_type)
            .ok()?;
        return (!value.is_null()).then_some(value);
    }
    // Whole numbers and decimals: the digits after the point must fit, trailing zeros do not count.
    let plain = if text.contains(['e', 'E']) {
        let value: f64 = text.parse().ok()?;
        value.to_string()
    } else {
        text.to_owned()
    };
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let fraction = fraction.trim_end_matches('0');
    let scale = match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale,
        _ => 0,
    };
    if i64::try_from(fraction.len()).ok()? > i64::from(scale).max(0) {
        return None;
    }
    let exact = if fraction.is_empty() {
        whole.to_owned()
    } else {
        format!("{whole}.{fraction}")
    };
    let value = cast_text(&exact, data_type)?;
    // A negative scale rounds to tens or hundreds: take the value only if it says the same.
    if scale < 0 {
        let digits = usize::from(scale.unsigned_abs());
        let zeros = exact.bytes().rev().take_while(|digit| *digit == b'0').count();
        return (zeros >= digits).then_some(value);
    }
    Some(value)
}

fn cast_text(text: &str, data_type: &DataType) -> Option<ScalarValue> {
    let array = StringArray::from(vec![text]);
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast: Arc<dyn Array> = cast_with_options(&array, data_type, &options).ok()?;
    ScalarValue::try_from_array(&cast, 0)
        .ok()
        .filter(|value| !value.is_null())
}

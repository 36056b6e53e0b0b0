//! Functions that statements of push-down call, and that SQLite has not, or has otherwise.
//!
//! In: a connection. Out: the same connection, which knows them. SQLite has no overflow of whole numbers (it goes on with floating point), ends texts at a
//! NUL character in `length`, `substr` and `LIKE`, and ignores case in `LIKE`. And it does not keep to the types that it is told: [`FITS`] is true for rows
//! whose values fit, and fails for others in the words of who reads them.
//!
//! They may be called by statements only, never by what is stored in a file: no view, trigger or index can call them.

use std::fmt;
use std::panic::RefUnwindSafe;
use std::str::Chars;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result};

use super::decode::{fits, storage_class};
use super::kind::Kind;
use crate::ErrorKind;

/// Whether values fit the types of their columns: the name of the dataset, the types with a blank between, and name and value of each column.
pub(super) const FITS: &str = "minerva_fits";
/// Sums, differences and products of whole numbers that fail where 64 bits are too few.
pub(super) const ADD: &str = "minerva_add";
pub(super) const SUBTRACT: &str = "minerva_subtract";
pub(super) const MULTIPLY: &str = "minerva_multiply";
/// Whether a text is like a pattern without an escape.
pub(super) const LIKE: &str = "minerva_like";
/// How many letters a text has.
pub(super) const LENGTH: &str = "minerva_length";
/// Letters of a text from a place on, which is counted from 1, and perhaps so many of them.
pub(super) const SUBSTR: &str = "minerva_substr";
/// Whether a text begins with another.
pub(super) const STARTS_WITH: &str = "minerva_starts_with";

/// Function calls have at most so many arguments.
pub(super) const MOST_CHECKED: usize = 48;

/// What stands before the name and the value of the first column.
const BEFORE_COLUMNS: usize = 2;

/// What begins the messages of this file, by which they are known again.
const MISFIT: &str = "minerva value: ";
const RANGE: &str = "minerva range: ";

/// Why a function fails.
#[derive(Debug)]
struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

fn fault(message: String) -> Error {
    Error::UserFunctionError(Box::new(Fault(message)))
}

/// What SQLite reports of a statement, if it is that a function of this file, or `sum`, failed.
pub(super) fn reported(text: &str) -> Option<(ErrorKind, String)> {
    if text == "integer overflow" {
        return Some((
            ErrorKind::OutOfRange,
            "a sum of whole numbers is too large or too small for 64 bits".to_owned(),
        ));
    }
    let known = [(MISFIT, ErrorKind::BadValue), (RANGE, ErrorKind::OutOfRange)];
    known
        .into_iter()
        .find_map(|(mark, kind)| Some((kind, text.strip_prefix(mark)?.to_owned())))
}

/// Makes the functions known to a connection.
pub(super) fn register(connection: &Connection) -> Result<()> {
    let with = |name: &str, arguments: i32, function: fn(&Context<'_>) -> Result<Option<bool>>| {
        define(connection, name, arguments, function)
    };
    with(FITS, -1, check)?;
    with(LIKE, 2, like)?;
    with(STARTS_WITH, 2, |call| {
        Ok(both(text(call, 0), text(call, 1)).map(|(text, prefix)| text.starts_with(prefix)))
    })?;
    define(connection, ADD, 2, |call| arithmetic(call, "+", i64::checked_add))?;
    define(connection, SUBTRACT, 2, |call| arithmetic(call, "-", i64::checked_sub))?;
    define(connection, MULTIPLY, 2, |call| arithmetic(call, "*", i64::checked_mul))?;
    define(connection, LENGTH, 1, |call| {
        Ok(text(call, 0).map(|text| i64::try_from(text.chars().count()).unwrap_or(i64::MAX)))
    })?;
    define(connection, SUBSTR, -1, substr)
}

fn define<T: rusqlite::functions::SqlFnOutput + 'static>(
    connection: &Connection,
    name: &str,
    arguments: i32,
    function: impl Fn(&Context<'_>) -> Result<T> + Send + RefUnwindSafe + std::panic::UnwindSafe + 'static,
) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function(name, arguments, flags, move |call| function(call))
}

fn check(call: &Context<'_>) -> Result<Option<bool>> {
    let kinds = call.get_or_create_aux(1, |kinds| -> Result<Vec<Kind>, Fault> {
        let kinds = kinds.as_str().unwrap_or_default().split(' ');
        let kinds: Option<Vec<Kind>> = kinds.map(Kind::of_declared).collect();
        kinds.ok_or_else(|| Fault("a type is not known".to_owned()))
    })?;
    for (column, kind) in kinds.iter().enumerate() {
        let at = BEFORE_COLUMNS + 2 * column;
        if at + 1 >= call.len() {
            return Err(fault("fewer columns than types".to_owned()));
        }
        let value = call.get_raw(at + 1);
        if !fits(*kind, value) {
            let (dataset, name) = (call.get::<String>(0)?, call.get::<String>(at)?);
            return Err(fault(format!(
                "{MISFIT}column `{name}` of `{dataset}` holds {} where {} is expected; correct the value, or read the table through a view of the \
                 database that casts it",
                storage_class(value),
                kind.describe()
            )));
        }
    }
    Ok(Some(true))
}

fn arithmetic(call: &Context<'_>, sign: &str, compute: fn(i64, i64) -> Option<i64>) -> Result<Option<i64>> {
    let Some((left, right)) = both(number(call, 0), number(call, 1)) else {
        return Ok(None);
    };
    let result = compute(left, right);
    let message = || format!("{RANGE}the result of `{sign}` is too large or too small for a whole number of 64 bits");
    result.map(Some).ok_or_else(|| fault(message()))
}

fn both<T>(left: Option<T>, right: Option<T>) -> Option<(T, T)> {
    Some((left?, right?))
}

/// A whole number; nothing where there is none, and where the value is something else.
///
/// SQLite may ask before [`FITS`] does, where an index has the value: whether the row is looked at at all is not decided yet then, and if it is, `FITS` fails.
fn number(call: &Context<'_>, at: usize) -> Option<i64> {
    match call.get_raw(at) {
        ValueRef::Integer(number) => Some(number),
        _ => None,
    }
}

/// A text, as [`number`] is a number.
fn text<'a>(call: &'a Context<'_>, at: usize) -> Option<&'a str> {
    match call.get_raw(at) {
        ValueRef::Text(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

fn like(call: &Context<'_>) -> Result<Option<bool>> {
    let Some(text) = text(call, 0) else { return Ok(None) };
    let pattern = call.get_or_create_aux(1, |pattern| {
        pattern.as_str().map(|text| text.chars().collect::<Vec<char>>())
    })?;
    Ok(Some(is_like(text.chars(), &pattern)))
}

/// Whether `%` and `_` of a pattern can stand for parts of a text so that it is the text.
fn is_like(mut rest: Chars<'_>, pattern: &[char]) -> bool {
    let mut at = 0;
    // After the last `%`: where the text went on, and where the pattern does.
    let mut back: Option<(Chars<'_>, usize)> = None;
    loop {
        let mut ahead = rest.clone();
        let letter = ahead.next();
        match (pattern.get(at), letter) {
            (Some('%'), _) => {
                at += 1;
                back = Some((rest.clone(), at));
                continue;
            }
            (Some(wanted), Some(letter)) if *wanted == '_' || *wanted == letter => {
                rest = ahead;
                at += 1;
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((from, after)) = &mut back else { return false };
        if from.next().is_none() {
            return false;
        }
        rest = from.clone();
        at = *after;
    }
}

fn substr(call: &Context<'_>) -> Result<Option<String>> {
    let Some(text) = text(call, 0) else { return Ok(None) };
    let place = |at: usize| -> Result<usize> { Ok(usize::try_from(call.get::<i64>(at)?).unwrap_or_default()) };
    let letters = text.chars().skip(place(1)?.saturating_sub(1));
    Ok(Some(match call.len() {
        2 => letters.collect(),
        _ => letters.take(place(2)?).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use rusqlite::types::Value;

    use super::*;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection).unwrap();
        connection
    }

    fn ask(sql: &str) -> std::result::Result<Value, String> {
        let found = connection().query_row(&format!("SELECT {sql}"), [], |row| row.get(0));
        found.map_err(|failure| failure.to_string())
    }

    #[test]
    fn texts_are_taken_as_a_whole_and_by_their_letters() {
        let number = |sql: &str| ask(sql).unwrap();
        assert_eq!(number("minerva_length(CAST(X'6100C3A9' AS TEXT))"), Value::Integer(3));
        assert_eq!(number("minerva_length(NULL)"), Value::Null);
        assert_eq!(number("minerva_substr('aéb', 2)"), Value::Text("éb".to_owned()));
        assert_eq!(number("minerva_substr('aéb', 2, 1)"), Value::Text("é".to_owned()));
        assert_eq!(number("minerva_substr('aéb', 9, 1)"), Value::Text(String::new()));
        assert_eq!(number("minerva_starts_with('Abc', 'a')"), Value::Integer(0));
        assert_eq!(number("minerva_starts_with('abc', 'ab')"), Value::Integer(1));
        for (text, pattern, expected) in [
            ("abc", "abc", 1),
            ("abc", "ABC", 0),
            ("abc", "a%", 1),
            ("abc", "%c", 1),
            ("abc", "%b%", 1),
            ("abc", "_b_", 1),
            ("abc", "_b", 0),
            ("", "", 1),
            ("", "%", 1),
            ("", "_", 0),
            ("é\u{1f600}", "__", 1),
            ("aXbXc", "a%X%c", 1),
            ("aaab", "%a_b", 1),
            ("mississippi", "%iss%ip%i", 1),
            ("mississippi", "%iss%ix%i", 0),
            ("a\nb", "a_b", 1),
            ("100%", "100%", 1),
        ] {
            let found = number(&format!("minerva_like('{text}', '{pattern}')"));
            assert_eq!(found, Value::Integer(expected), "{text} LIKE {pattern}");
        }
        assert_eq!(number("minerva_like(CAST(X'610062' AS TEXT), '%b')"), Value::Integer(1));
    }

    #[test]
    fn whole_numbers_stay_whole_or_fail() {
        assert_eq!(ask("minerva_add(9223372036854775806, 1)"), Ok(Value::Integer(i64::MAX)));
        assert_eq!(ask("minerva_multiply(NULL, 1)"), Ok(Value::Null));
        for sql in [
            "minerva_add(9223372036854775807, 1)",
            "minerva_subtract(-9223372036854775808, 1)",
            "minerva_multiply(-9223372036854775808, -1)",
        ] {
            let text = ask(sql).unwrap_err();
            assert_eq!(reported(&text).unwrap().0, ErrorKind::OutOfRange, "{text}");
        }
        let text = ask("sum(x) FROM (SELECT 9223372036854775807 AS x UNION ALL SELECT 1)").unwrap_err();
        assert_eq!(reported(&text).unwrap().0, ErrorKind::OutOfRange, "{text}");
    }

    #[test]
    fn values_of_another_sort_are_none() {
        for sql in [
            "minerva_add('abc', 1)",
            "minerva_multiply(1, 1.5)",
            "minerva_length(X'61')",
            "minerva_length(CAST(X'ff' AS TEXT))",
            "minerva_like(5, '5')",
            "minerva_substr(5, 1)",
            "minerva_starts_with('5', X'35')",
        ] {
            assert_eq!(ask(sql), Ok(Value::Null), "{sql}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_by_its_column() {
        let fits = |kind: &str, value: &str| ask(&format!("minerva_fits('t', '{kind}', 'x', {value})"));
        for (kind, value) in [
            ("INTEGER", "1"),
            ("INTEGER", "NULL"),
            ("BOOLEAN", "0"),
            ("DATE", "'2024-02-29'"),
            ("DECIMAL(4,2)", "12.25"),
            ("TEXT", "CAST(X'610062' AS TEXT)"),
            ("REAL", "1e999"),
            ("TIMESTAMP", "'2024-02-29 01:02'"),
            ("BLOB", "X'00'"),
        ] {
            assert_eq!(fits(kind, value), Ok(Value::Integer(1)), "{kind} {value}");
        }
        for (kind, value) in [
            ("INTEGER", "'abc'"),
            ("INTEGER", "1e300"),
            ("BOOLEAN", "2"),
            ("DATE", "'2023-02-29'"),
            ("DATE", "5"),
            ("DECIMAL(4,2)", "123.5"),
            ("TEXT", "X'61'"),
            ("TEXT", "CAST(X'ff' AS TEXT)"),
            ("REAL", "9007199254740993"),
            ("TIMESTAMP", "'now'"),
            ("BLOB", "'a'"),
        ] {
            let (reason, message) = reported(&fits(kind, value).unwrap_err()).unwrap();
            assert_eq!(reason, ErrorKind::BadValue, "{kind} {value}");
            assert!(message.starts_with("column `x` of `t` holds "), "{message}");
        }
        assert!(ask("minerva_fits('t', 'INTEGER', 'x')").is_err());
        // Not even when a file says so.
        let connection = connection();
        connection
            .execute_batch("CREATE VIEW v AS SELECT minerva_length('a') AS n")
            .unwrap();
        assert!(
            connection
                .query_row("SELECT n FROM v", [], |row| row.get::<_, i64>(0))
                .is_err()
        );
    }
}

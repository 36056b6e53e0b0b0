//! What may stand at the cursor.
//!
//! In: the text, the cursor, the names that are known. Out: candidates. What comes before the cursor decides: a path lists what is below it, a
//! word after FROM names tables, any other word is a keyword, a function, or a column of the tables that the statement names.
//! Deliberately absent: a grammar.

use std::collections::BTreeSet;

use super::{
    command::{COMMANDS, names_of_formats},
    names::{Catalogue, Table, quoted, unquoted},
    words::{FUNCTIONS, KEYWORDS},
};
use crate::{line::Completion, sql::split::pieces};

/// Keywords after which a table is named.
const BEFORE_TABLES: &[&str] = &["from", "join", "into", "table", "describe", "update", "view"];

/// The candidates at a cursor.
pub(super) fn complete(text: &str, cursor: usize, names: &Catalogue) -> Completion {
    let Some(before) = text.get(..cursor) else {
        return Completion::default();
    };
    if before.trim_start().starts_with('\\') {
        return complete_command(before, names);
    }
    let pieces: Vec<&str> = pieces(before).collect();
    if pieces.last().is_some_and(|piece| is_closed_to_names(piece)) {
        return Completion::default();
    }
    let (path, rest) = path_at_end(&pieces);
    let start = before.len() - path.iter().map(|piece| piece.len()).sum::<usize>();
    let word = rest.iter().rev().find(|piece| !piece.trim().is_empty()).copied();
    let after_table_word = word.is_some_and(|word| BEFORE_TABLES.iter().any(|known| word.eq_ignore_ascii_case(known)));
    let (above, typed) = split_path(&path);
    let start_of_typed = start + path.iter().map(|piece| piece.len()).sum::<usize>() - typed.len();
    let found: BTreeSet<String> = if !above.is_empty() {
        below(&above, text, names)
    } else if after_table_word {
        tables(names)
    } else if word.is_some_and(|word| word.eq_ignore_ascii_case("use")) {
        schemas(names)
    } else {
        words(typed, text, names)
    };
    Completion {
        start: start_of_typed,
        candidates: matching(found, typed),
    }
}

/// Whether a cursor behind this is in a string, a comment or a number.
fn is_closed_to_names(piece: &str) -> bool {
    piece.ends_with('\'')
        || piece.starts_with(['\'', '$'])
        || piece.starts_with("--")
        || (piece.starts_with("/*") && !piece.ends_with("*/"))
        || piece.starts_with(|first: char| first.is_ascii_digit())
}

/// The pieces at the end that make up a name with dots, and those before.
fn path_at_end<'a>(pieces: &'a [&'a str]) -> (Vec<&'a str>, &'a [&'a str]) {
    let is_part = |piece: &&str| {
        *piece == "."
            || piece.starts_with('"')
            || piece
                .chars()
                .all(|character| character.is_alphanumeric() || matches!(character, '_' | '$'))
    };
    let from = pieces.iter().rposition(|piece| !is_part(piece)).map_or(0, |at| at + 1);
    let (rest, path) = pieces.split_at(from);
    (path.to_vec(), rest)
}

/// The names above the last dot, and what was typed behind it.
fn split_path<'a>(path: &[&'a str]) -> (Vec<String>, &'a str) {
    let (above, typed) = match path.split_last() {
        None => return (Vec::new(), ""),
        Some((&".", above)) => (above, ""),
        Some((typed, above)) => (above, *typed),
    };
    let above = above.iter().filter(|piece| **piece != ".").map(|piece| unquoted(piece));
    (above.collect(), typed)
}

/// Those that begin as it was typed, written as it was typed.
fn matching(found: BTreeSet<String>, typed: &str) -> Vec<String> {
    let in_quotes = typed.starts_with('"');
    let wanted = if in_quotes {
        unquoted(typed)
    } else {
        typed.to_lowercase()
    };
    found
        .into_iter()
        .map(|written| match in_quotes {
            true if !written.starts_with('"') => format!("\"{written}\""),
            _ => written,
        })
        .filter(|written| {
            let name = written.trim_start_matches('"');
            name.starts_with(&wanted) || (!in_quotes && name.to_lowercase().starts_with(&wanted))
        })
        .collect()
}

/// What lies below a path: schemas and tables of a catalog, tables of a schema, columns of a table or of what stands for it.
fn below(above: &[String], text: &str, names: &Catalogue) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for table in &names.tables {
        match above {
            [one] => {
                if table.catalog == *one {
                    found.insert(quoted(&table.schema));
                }
                if table.schema == *one && is_current(&table.catalog, names.current.0.as_ref()) {
                    found.insert(quoted(&table.name));
                }
            }
            [catalog, schema] if table.catalog == *catalog && table.schema == *schema => {
                found.insert(quoted(&table.name));
            }
            _ => {}
        }
    }
    for (table, alias) in named(text, names) {
        let path = [&table.catalog, &table.schema, &table.name];
        let is_meant = above.iter().rev().eq(path.into_iter().rev().take(above.len()));
        if is_meant || above == [alias.as_str()] {
            found.extend(table.columns.iter().map(|column| quoted(column)));
        }
    }
    found
}

fn is_current(name: &String, current: Option<&String>) -> bool {
    current.is_none_or(|current| current == name)
}

/// What may be named as a table: tables of the current schema, and where others are.
fn tables(names: &Catalogue) -> BTreeSet<String> {
    let (catalog, schema) = &names.current;
    let mut found = BTreeSet::new();
    for table in &names.tables {
        found.insert(quoted(&table.catalog));
        if catalog.as_ref() == Some(&table.catalog) {
            found.insert(quoted(&table.schema));
            if schema.as_ref() == Some(&table.schema) {
                found.insert(quoted(&table.name));
            }
        }
    }
    found
}

fn schemas(names: &Catalogue) -> BTreeSet<String> {
    let catalogs = names.tables.iter().map(|table| quoted(&table.catalog));
    let current = names
        .tables
        .iter()
        .filter(|table| names.current.0.as_ref() == Some(&table.catalog));
    catalogs.chain(current.map(|table| quoted(&table.schema))).collect()
}

/// Keywords and functions in the letters that were typed, columns, and catalogs.
fn words(typed: &str, text: &str, names: &Catalogue) -> BTreeSet<String> {
    let is_upper = typed.starts_with(|first: char| first.is_uppercase());
    let spelt = |word: &&str| {
        if is_upper {
            word.to_uppercase()
        } else {
            (*word).to_owned()
        }
    };
    let mut found = BTreeSet::new();
    for (table, alias) in named(text, names) {
        found.extend(table.columns.iter().map(|column| quoted(column)));
        found.insert(quoted(&alias));
    }
    if !typed.is_empty() && !typed.starts_with('"') {
        found.extend(KEYWORDS.iter().chain(FUNCTIONS).map(spelt));
    }
    found
}

/// The tables that a text names, each with the name that stands for it.
fn named<'a>(text: &str, names: &'a Catalogue) -> Vec<(&'a Table, String)> {
    let all: Vec<&str> = pieces(text).filter(|piece| !piece.trim().is_empty()).collect();
    let mut found = Vec::new();
    for (at, piece) in all.iter().enumerate() {
        if !BEFORE_TABLES
            .iter()
            .chain(&[","])
            .any(|known| piece.eq_ignore_ascii_case(known))
        {
            continue;
        }
        let mut rest = all.iter().skip(at + 1);
        let mut path: Vec<String> = rest.next().map(|first| unquoted(first)).into_iter().collect();
        let mut next = rest.next();
        while next == Some(&".") {
            path.extend(rest.next().map(|part| unquoted(part)));
            next = rest.next();
        }
        if next.is_some_and(|word| word.eq_ignore_ascii_case("as")) {
            next = rest.next();
        }
        let alias = next
            .filter(|word| {
                word.starts_with(|first: char| first.is_alphabetic() || first == '"') && !super::words::is_keyword(word)
            })
            .map(|word| unquoted(word));
        for table in names.tables.iter().filter(|table| is_table(table, &path, names)) {
            found.push((table, alias.clone().unwrap_or_else(|| table.name.clone())));
        }
    }
    found
}

fn is_table(table: &Table, path: &[String], names: &Catalogue) -> bool {
    match path {
        [name] => {
            table.name == *name
                && is_current(&table.catalog, names.current.0.as_ref())
                && is_current(&table.schema, names.current.1.as_ref())
        }
        [schema, name] => {
            table.name == *name && table.schema == *schema && is_current(&table.catalog, names.current.0.as_ref())
        }
        [catalog, schema, name] => table.name == *name && table.schema == *schema && table.catalog == *catalog,
        _ => false,
    }
}

/// The name of a command, or what stands behind it.
fn complete_command(before: &str, names: &Catalogue) -> Completion {
    let start = before.len() - before.trim_start().len();
    let typed = before.split_at(start).1;
    let Some(space) = typed.find(char::is_whitespace) else {
        let known = COMMANDS.iter().map(|spec| spec.name.to_owned());
        return Completion {
            start,
            candidates: known.filter(|name| name.starts_with(typed)).collect(),
        };
    };
    let (name, argument) = typed.split_at(space);
    let begin = before.len() - argument.trim_start().len();
    let argument = argument.trim_start();
    let path: Vec<&str> = pieces(argument).collect();
    let (above, last) = split_path(&path);
    let found: BTreeSet<String> = match name {
        "\\d" | "\\dt" | "\\dn" | "\\c" if !above.is_empty() => below(&above, "", names),
        "\\d" => tables(names),
        "\\dt" | "\\dn" | "\\c" => schemas(names),
        "\\format" => {
            let candidates = names_of_formats().into_iter();
            let wanted = argument.to_uppercase();
            return Completion {
                start: begin,
                candidates: candidates.filter(|format| format.starts_with(&wanted)).collect(),
            };
        }
        "\\timing" => ["off", "on"].map(str::to_owned).into(),
        _ => BTreeSet::new(),
    };
    Completion {
        start: before.len() - last.len(),
        candidates: matching(found, last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Catalogue {
        let table = |catalog: &str, schema: &str, name: &str, columns: &[&str]| Table {
            catalog: catalog.to_owned(),
            schema: schema.to_owned(),
            name: name.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        };
        Catalogue {
            tables: vec![
                table("air", "nyc", "flights", &["carrier", "Dep Delay", "distance"]),
                table("air", "nyc", "flags", &[]),
                table("air", "lon", "trains", &["code"]),
                table("fleet", "main", "Planes", &["tailnum"]),
            ],
            current: (Some("air".to_owned()), Some("nyc".to_owned())),
        }
    }

    /// Completes at `|`; answers the texts with each candidate put in.
    fn check(text: &str, expected: &[&str]) {
        let cursor = text.find('|').unwrap();
        let plain = text.replace('|', "");
        let completion = complete(&plain, cursor, &names());
        let found: Vec<String> = completion
            .candidates
            .iter()
            .map(|candidate| format!("{}{candidate}", plain.get(..completion.start).unwrap()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn the_place_decides_what_may_stand_there() {
        check("SEL|", &["SELECT"]);
        check("sel|", &["select"]);
        check(
            "SELECT 1 FROM fl|",
            &["SELECT 1 FROM flags", "SELECT 1 FROM fleet", "SELECT 1 FROM flights"],
        );
        check(
            "SELECT 1 FROM air.|",
            &["SELECT 1 FROM air.lon", "SELECT 1 FROM air.nyc"],
        );
        check("SELECT 1 FROM air.nyc.fli|", &["SELECT 1 FROM air.nyc.flights"]);
        check("SELECT 1 FROM lon.|", &["SELECT 1 FROM lon.trains"]);
        check("SELECT 1 FROM fleet.main.p|", &["SELECT 1 FROM fleet.main.\"Planes\""]);
        check(
            "SELECT 1 FROM fleet.main.\"P|",
            &["SELECT 1 FROM fleet.main.\"Planes\""],
        );
        check("SELECT dis| FROM flights", &["SELECT distance", "SELECT distinct"]);
        check(
            "SELECT f.| FROM flights f",
            &["SELECT f.\"Dep Delay\"", "SELECT f.carrier", "SELECT f.distance"],
        );
        check(
            "SELECT * FROM air.lon.trains AS t WHERE t.|",
            &["SELECT * FROM air.lon.trains AS t WHERE t.code"],
        );
        check("SELECT flights.car| FROM flights", &["SELECT flights.carrier"]);
        check("USE fl|", &["USE fleet"]);
        check("SELECT 'sel|", &[]);
        check("SELECT 1 -- sel|", &[]);
        check("SELECT 12|", &[]);
        check("nothing_begins_so|", &[]);
    }

    #[test]
    fn commands_are_completed_too() {
        check("\\ti|", &["\\timing"]);
        check("\\d|", &["\\d", "\\df", "\\dn", "\\dt"]);
        check("\\d fli|", &["\\d flights"]);
        check("\\dt air.|", &["\\dt air.lon", "\\dt air.nyc"]);
        check("\\c fl|", &["\\c fleet"]);
        check("\\format ma|", &["\\format MARKDOWN"]);
        check("\\timing o|", &["\\timing off", "\\timing on"]);
        check("\\q |", &[]);
    }
}

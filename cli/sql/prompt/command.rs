//! What can be typed at the prompt that is no SQL.
//!
//! In: one line. Out: a [`Command`], or a sentence on what is wrong with it. Every command is one line of [`COMMANDS`], which help and
//! completion read too. Deliberately absent: doing anything.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;

use crate::output::Format;

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Help,
    Quit,
    /// Runs a statement in the place of the command.
    Sql(String),
    /// Runs the statements of a file.
    File(PathBuf),
    /// Sends results to a file, or to the screen again.
    Output(Option<PathBuf>),
    /// Chooses a format, or says which one is chosen.
    Format(Option<Format>),
    /// Switches between a line for each value and a table.
    Expanded,
    /// Whether times are told; without a word, the other way than now.
    Timing(Option<bool>),
    /// Runs the last statement again and again.
    Watch(Duration),
}

/// One command as it is typed and explained.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) argument: &'static str,
    pub(super) about: &'static str,
    read: fn(&str) -> Result<Command, String>,
}

const WATCHED_EVERY: Duration = Duration::from_secs(2);
/// A day; what is watched more seldom is not watched at a prompt.
const LONGEST_WATCH: f64 = 86_400.0;

/// Every command, in the order of the alphabet.
#[rustfmt::skip]
pub(super) const COMMANDS: &[Spec] = &[
    Spec { name: "\\?", argument: "", about: "this help; also `help`", read: |rest| alone(rest, Command::Help) },
    Spec { name: "\\c", argument: "CATALOG.SCHEMA", about: "looks names up there from now on; the same as USE", read: |rest| Ok(Command::Sql(format!("USE {}", needed(rest, "CATALOG.SCHEMA")?))) },
    Spec { name: "\\d", argument: "[TABLE]", about: "the columns of a table; without one, the tables of the current schema", read: |rest| Ok(Command::Sql(with("SHOW TABLES", "DESCRIBE", rest))) },
    Spec { name: "\\df", argument: "[PATTERN]", about: "functions", read: |rest| Ok(Command::Sql(functions(rest))) },
    Spec { name: "\\dn", argument: "[CATALOG]", about: "schemas (collections)", read: |rest| Ok(Command::Sql(with("SHOW SCHEMAS", "SHOW SCHEMAS FROM", rest))) },
    Spec { name: "\\dt", argument: "[CATALOG.SCHEMA]", about: "tables (datasets)", read: |rest| Ok(Command::Sql(with("SHOW TABLES", "SHOW TABLES FROM", rest))) },
    Spec { name: "\\format", argument: "[NAME]", about: "how results are written: ALIGNED, VERTICAL, CSV, TSV, JSON, MARKDOWN, ARROW, PARQUET", read: format_named },
    Spec { name: "\\i", argument: "FILE", about: "runs the statements of a file", read: |rest| Ok(Command::File(needed(rest, "FILE")?.into())) },
    Spec { name: "\\l", argument: "", about: "catalogs (depots)", read: |rest| alone(rest, Command::Sql("SHOW CATALOGS".to_owned())) },
    Spec { name: "\\o", argument: "[FILE]", about: "writes results to a file; without one, to the screen again", read: |rest| Ok(Command::Output(some(rest).map(PathBuf::from))) },
    Spec { name: "\\q", argument: "", about: "leaves; also `quit`, `exit` and Ctrl-D", read: |rest| alone(rest, Command::Quit) },
    Spec { name: "\\timing", argument: "[on|off]", about: "whether rows and time are told after each statement", read: timing },
    Spec { name: "\\watch", argument: "[SECONDS]", about: "runs the last statement again and again until Ctrl-C", read: watch },
    Spec { name: "\\x", argument: "", about: "one line a value, or a table again", read: |rest| alone(rest, Command::Expanded) },
];

/// Words that are commands when they stand alone.
const WORDS: &[(&str, Command)] = &[
    ("exit", Command::Quit),
    ("help", Command::Help),
    ("quit", Command::Quit),
];

/// The command in a text; `None` when it is SQL.
pub(super) fn parse(text: &str) -> Option<Result<Command, String>> {
    let text = text.trim();
    if !text.starts_with('\\') {
        let word = text.trim_end_matches(';').trim_end();
        let found = WORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
        return found.map(|(_, command)| Ok(command.clone()));
    }
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim().trim_end_matches(';').trim_end();
    let name = name.trim_end_matches(';');
    Some(match COMMANDS.iter().find(|spec| spec.name == name) {
        Some(spec) => (spec.read)(rest).map_err(|message| format!("{name}: {message}")),
        None => Err(unknown(name)),
    })
}

/// Whether a text is a command, for which one line is enough.
pub(super) fn is_command(text: &str) -> bool {
    parse(text).is_some()
}

fn unknown(name: &str) -> String {
    let closest = COMMANDS
        .iter()
        .map(|spec| (strsim::damerau_levenshtein(spec.name, &name.to_lowercase()), spec.name))
        .min()
        .filter(|(distance, closest)| *distance <= 2 && *distance < closest.len());
    match closest {
        Some((_, closest)) => format!("there is no command `{name}`; did you mean `{closest}`? `\\?` lists them all"),
        None => format!("there is no command `{name}`; `\\?` lists them all"),
    }
}

fn some(rest: &str) -> Option<&str> {
    Some(rest).filter(|rest| !rest.is_empty())
}

fn needed<'a>(rest: &'a str, what: &str) -> Result<&'a str, String> {
    some(rest).ok_or_else(|| format!("{what} is missing"))
}

fn alone(rest: &str, command: Command) -> Result<Command, String> {
    match some(rest) {
        None => Ok(command),
        Some(rest) => Err(format!("takes nothing, and not `{rest}`")),
    }
}

fn with(without: &str, before: &str, rest: &str) -> String {
    some(rest).map_or_else(|| without.to_owned(), |rest| format!("{before} {rest}"))
}

fn functions(rest: &str) -> String {
    match some(rest) {
        None => "SHOW FUNCTIONS".to_owned(),
        Some(pattern) => format!(
            "SHOW FUNCTIONS LIKE '{}'",
            pattern.trim_matches('\'').replace('\'', "''")
        ),
    }
}

fn format_named(rest: &str) -> Result<Command, String> {
    let Some(name) = some(rest) else {
        return Ok(Command::Format(None));
    };
    match Format::from_str(name, true) {
        Ok(format) => Ok(Command::Format(Some(format))),
        Err(_) => Err(format!(
            "there is no format `{name}`; expected {}",
            names_of_formats().join(", ")
        )),
    }
}

/// The formats as they are typed.
pub(super) fn names_of_formats() -> Vec<String> {
    Format::value_variants()
        .iter()
        .filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()))
        .collect()
}

fn timing(rest: &str) -> Result<Command, String> {
    Ok(Command::Timing(match some(rest) {
        None => None,
        Some(word) if word.eq_ignore_ascii_case("on") => Some(true),
        Some(word) if word.eq_ignore_ascii_case("off") => Some(false),
        Some(word) => return Err(format!("`{word}` is neither `on` nor `off`")),
    }))
}

fn watch(rest: &str) -> Result<Command, String> {
    let Some(text) = some(rest) else {
        return Ok(Command::Watch(WATCHED_EVERY));
    };
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=LONGEST_WATCH).contains(&seconds) => Ok(Command::Watch(Duration::from_secs_f64(seconds))),
        _ => Err(format!("`{text}` is no number of seconds from 0.1 to {LONGEST_WATCH}")),
    }
}

/// What `\?` shows.
pub(super) fn help() -> String {
    let line = |left: &str, about: &str| format!("  {left:<24}{about}\n");
    let mut text = "A statement ends with `;`. Commands stand on a line of their own:\n".to_owned();
    for spec in COMMANDS {
        text.push_str(&line(&format!("{} {}", spec.name, spec.argument), spec.about));
    }
    text.push_str("Keys:\n");
    for (key, about) in [
        (
            "Tab",
            "completes keywords, commands, catalogs, schemas, tables and columns",
        ),
        ("Ctrl-C", "cancels the running statement, or throws the text away"),
        ("Ctrl-R", "searches what was typed before"),
        ("Alt-Enter", "begins a new line in any case"),
    ] {
        text.push_str(&line(key, about));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> Option<Result<Command, String>> {
        Some(Ok(Command::Sql(text.to_owned())))
    }

    #[test]
    fn commands_are_read_as_they_are_typed() {
        for (text, expected) in [
            ("\\?", Some(Ok(Command::Help))),
            (" help ; ", Some(Ok(Command::Help))),
            ("QUIT", Some(Ok(Command::Quit))),
            ("exit;", Some(Ok(Command::Quit))),
            ("\\q", Some(Ok(Command::Quit))),
            ("\\q;", Some(Ok(Command::Quit))),
            ("\\d", sql("SHOW TABLES")),
            ("\\d air.nyc.flights;", sql("DESCRIBE air.nyc.flights")),
            ("\\dn", sql("SHOW SCHEMAS")),
            ("\\dn air", sql("SHOW SCHEMAS FROM air")),
            ("\\dt air.nyc", sql("SHOW TABLES FROM air.nyc")),
            ("\\df it's%", sql("SHOW FUNCTIONS LIKE 'it''s%'")),
            ("\\l", sql("SHOW CATALOGS")),
            ("\\c air.nyc", sql("USE air.nyc")),
            ("\\i a b.sql", Some(Ok(Command::File("a b.sql".into())))),
            ("\\o", Some(Ok(Command::Output(None)))),
            ("\\o out.csv", Some(Ok(Command::Output(Some("out.csv".into()))))),
            ("\\format csv", Some(Ok(Command::Format(Some(Format::Csv))))),
            ("\\format", Some(Ok(Command::Format(None)))),
            ("\\timing", Some(Ok(Command::Timing(None)))),
            ("\\timing OFF", Some(Ok(Command::Timing(Some(false))))),
            ("\\watch", Some(Ok(Command::Watch(Duration::from_secs(2))))),
            ("\\watch 0.5", Some(Ok(Command::Watch(Duration::from_millis(500))))),
            ("\\x", Some(Ok(Command::Expanded))),
            ("SELECT 1;", None),
            ("help me;", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("\\timeing", "did you mean `\\timing`"),
            ("\\wtach 2", "did you mean `\\watch`"),
            ("\\nothing_like_it", "`\\?` lists them all"),
            ("\\c", "CATALOG.SCHEMA is missing"),
            ("\\i", "FILE is missing"),
            ("\\x on", "takes nothing"),
            ("\\format xml", "expected ALIGNED, VERTICAL, CSV"),
            ("\\timing maybe", "neither `on` nor `off`"),
            ("\\watch never", "`never` is no number"),
            ("\\watch 0", "from 0.1"),
            ("\\watch inf", "from 0.1"),
        ] {
            let message = parse(text).unwrap().unwrap_err();
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn commands_are_in_order_and_all_explained() {
        assert!(COMMANDS.is_sorted_by_key(|spec| spec.name));
        let help = help();
        for spec in COMMANDS {
            assert!(
                help.contains(&format!("{} {}", spec.name, spec.argument)),
                "{}",
                spec.name
            );
            assert!(!spec.about.is_empty(), "{}", spec.name);
        }
    }
}

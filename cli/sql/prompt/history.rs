//! What was typed before, kept in a file that only its owner can read.
//!
//! In: texts. Out: the file `minerva/history` in the user's state folder, one JSON string a line, the newest 5,000. Texts that begin with a space
//! and texts that speak of secrets are not kept at all. Deliberately absent: other users, and failing because a file cannot be written.

use std::{
    env,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

const KEPT: usize = 5_000;
const OWNER_ONLY: u32 = 0o600;
/// A word with one of these in it speaks of a secret.
const SECRETS: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "apikey",
    "api_key",
    "credential",
    "private_key",
];

/// The file; without one, nothing is kept.
#[derive(Debug)]
pub(super) struct History(Option<PathBuf>);

impl History {
    /// Where the user's state is.
    pub(super) fn of_user() -> Self {
        let folder = env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
            .or_else(|| Some(env::home_dir()?.join(".local/state")));
        Self(folder.map(|folder| folder.join("minerva/history")))
    }

    /// What is kept, the newest last.
    pub(super) fn read(&self) -> Vec<String> {
        let Some(path) = &self.0 else {
            return Vec::new();
        };
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut all: Vec<String> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let old = all.len().saturating_sub(KEPT);
        all.drain(..old);
        // Not at each start, but when it is worth it.
        if old > KEPT {
            let _ = shorten(path, &all);
        }
        all
    }

    /// Keeps a text, if it may be kept; answers whether it may.
    pub(super) fn keep(&self, text: &str) -> bool {
        let keeps = may_be_kept(text);
        if let (true, Some(path)) = (keeps, &self.0) {
            // A prompt whose history cannot be written is still a prompt.
            let _ = append(path, text);
        }
        keeps
    }
}

fn may_be_kept(text: &str) -> bool {
    if text.trim().is_empty() || text.starts_with(char::is_whitespace) {
        return false;
    }
    let text = text.to_lowercase();
    let mut words = text.split(|character: char| !character.is_alphanumeric() && character != '_');
    !words.any(|word| SECRETS.iter().any(|secret| word.contains(secret)))
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(OWNER_ONLY)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(OWNER_ONLY))?;
    }
    // One write, so that two prompts do not mix their lines.
    file.write_all(format!("{}\n", serde_json::Value::from(text)).as_bytes())
}

fn shorten(path: &Path, texts: &[String]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(OWNER_ONLY)
        .open(&new)?;
    let lines: String = texts
        .iter()
        .map(|text| format!("{}\n", serde_json::Value::from(text.as_str())))
        .collect();
    file.write_all(lines.as_bytes())?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_secrets_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/history");
        let history = History(Some(path.clone()));
        assert!(history.read().is_empty());
        for (text, keeps) in [
            ("SELECT 1;", true),
            ("SELECT\n  'é\\n';", true),
            (" SELECT 2;", false),
            ("\n", false),
            ("CREATE SECRET s (x 'y');", false),
            ("SELECT connect('PASSWORD', 'x');", false),
            ("SET aws_secret_access_key = 'x';", false),
            ("SELECT tokens FROM t;", true),
        ] {
            assert_eq!(history.keep(text), keeps, "{text}");
        }
        assert_eq!(
            history.read(),
            ["SELECT 1;", "SELECT\n  'é\\n';", "SELECT tokens FROM t;"]
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(history.keep("SELECT 3;"));
        assert_eq!(mode(&path), 0o600, "a file that others can read is closed to them");
    }

    #[test]
    fn a_history_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let lines: String = (0..2 * KEPT + 1).map(|number| format!("\"{number}\"\n")).collect();
        fs::write(&path, format!("no JSON\n{lines}")).unwrap();
        let history = History(Some(path.clone()));
        assert_eq!(history.read().len(), KEPT);
        assert_eq!(history.read().last().map(String::as_str), Some("10000"));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), KEPT);
    }

    #[test]
    fn without_a_place_nothing_is_kept_and_nothing_fails() {
        let history = History(Some("/proc/no/such/history".into()));
        assert!(history.keep("SELECT 1"));
        assert!(history.read().is_empty());
    }
}

//! Puts manifests into folders that hold others: what `minerva apply` and `minerva delete` write.
//!
//! In: the folders, and manifests that are to hold from now on. Out: which files change and how, as texts. A manifest that is declared already is
//! replaced where it stands; a new one goes into a file of the last folder; of one that is taken out, the rest of its file stays byte for byte. Deliberately absent: what the resources mean; whoever writes the change
//! loads it first with [`load_changed`].

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files;
use crate::listing;
use crate::node::{self, Node, Value};
use crate::problem::{Location, Problem, Problems};

/// A kind's name and a resource's.
type Id = (&'static str, String);

/// What becomes of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It was not there.
    Created,
    /// It was there, and is another now.
    Changed,
    /// It was there like this.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl Action {
    /// The action as people and programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

/// A change of manifests that is not written yet.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The files that change: their text before, if they are there, and after. A file without any text after is removed.
    pub files: BTreeMap<PathBuf, (Option<String>, String)>,
    /// The kind and name of each resource that was given, and what becomes of it.
    pub resources: Vec<(String, String, Action)>,
}

/// A document of a file: where it stands, its text, and what it declares.
#[derive(Debug, Clone)]
struct Document {
    file: Arc<Path>,
    line: usize,
    text: String,
    ids: Vec<Id>,
}

/// Works out what has to be written for the manifests in `given` to hold in `folders`; new ones go into the folder `into`.
///
/// # Errors
/// Every file that cannot be read, and every manifest that cannot be put in its place.
pub fn plan(folders: &[PathBuf], into: &Path, given: &[PathBuf]) -> Result<Change, Problems> {
    let mut problems = unread(given);
    let mut texts = BTreeMap::new();
    let mut held = documents(folders, &mut problems, &mut texts);
    let mut wanted = documents(given, &mut problems, &mut BTreeMap::new());
    // What is only a comment asks for nothing.
    wanted.retain(|document| node::parse(&document.text, &document.file).is_ok_and(|nodes| !nodes.is_empty()));
    if problems.is_empty() && wanted.is_empty() {
        let file = given.first().map_or(Path::new(""), PathBuf::as_path);
        problems.push(Problem::new(Location::new(file, 0), "there is no manifest in it"));
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let mut change = Change::default();
    let mut touched: BTreeMap<PathBuf, Vec<Document>> = BTreeMap::new();
    for document in &held {
        touched.entry(document.file.to_path_buf()).or_default();
    }
    for document in wanted {
        // Applying a folder to itself, or a file that lies in it, changes nothing.
        let is_same = |known: &Document| same_file(&known.file, &document.file);
        if held.iter().any(is_same) {
            for (kind, name) in &document.ids {
                change
                    .resources
                    .push(((*kind).to_owned(), name.clone(), Action::Unchanged));
            }
            continue;
        }
        problems.extend(relative_paths(&document));
        let places: Vec<usize> = (held.iter().enumerate())
            .filter(|(_, known)| known.ids.iter().any(|id| document.ids.contains(id)))
            .map(|(index, _)| index)
            .collect();
        let mut action = Action::Created;
        match places.as_slice() {
            [] if document.ids.is_empty() && held.iter().any(|known| known.text.trim() == document.text.trim()) => {
                continue;
            }
            [] => {
                let name = document.file.file_name().unwrap_or_default();
                let file: Arc<Path> = Arc::from(into.join(name));
                held.push(Document {
                    file,
                    ..document.clone()
                });
            }
            [place] => {
                if let Some(known) = held.get_mut(*place) {
                    if known.ids.iter().any(|id| !document.ids.contains(id)) {
                        problems.push(shares_a_document(&document, known));
                        continue;
                    }
                    action = if known.text.trim() == document.text.trim() {
                        Action::Unchanged
                    } else {
                        Action::Changed
                    };
                    known.text.clone_from(&document.text);
                    known.ids.clone_from(&document.ids);
                }
            }
            [place, ..] => {
                if let Some(known) = held.get(*place) {
                    problems.push(shares_a_document(&document, known));
                }
                continue;
            }
        }
        for (kind, name) in &document.ids {
            change.resources.push(((*kind).to_owned(), name.clone(), action));
        }
    }
    if !problems.is_empty() {
        return Err(Problems::sorted(problems));
    }
    for document in held {
        touched.entry(document.file.to_path_buf()).or_default().push(document);
    }
    for (path, documents) in touched {
        // As it was when it was looked at: what it has become since is for the writing to find out.
        let before = match texts.remove(&path) {
            Some(text) => Some(text),
            None => fs::read_to_string(&path).ok(),
        };
        let after = joined(&documents);
        // A file that only looks otherwise when put together again is left alone.
        let was = before
            .as_deref()
            .map(|text| joined(&cut(&Arc::from(path.as_path()), text)));
        if was.as_deref() != Some(&after) {
            change.files.insert(path, (before, after));
        }
    }
    Ok(change)
}

/// Files that nobody would read where they would be put, since folders are searched for manifests by their names.
fn unread(given: &[PathBuf]) -> Vec<Problem> {
    let named = given.iter().filter(|path| path.is_file() && !files::is_manifest(path));
    named
        .map(|path| {
            Problem::new(
                Location::new(path.as_path(), 0),
                "the name of a file of manifests ends with `.yaml` or `.yml` and does not begin with `.`",
            )
            .help("rename it")
        })
        .collect()
}

/// Works out what has to be written for these resources, by kind and name, to be gone from `folders`. Those that are not there are passed over.
///
/// # Errors
/// Every file that cannot be read, and every resource that shares its document with others.
pub fn plan_removal(folders: &[PathBuf], unwanted: &[(&str, &str)]) -> Result<Change, Problems> {
    let mut problems = vec![];
    let mut change = Change::default();
    for file in files::find(folders, &mut problems) {
        let text = match files::read(&file) {
            Ok(text) => text,
            Err((line, message)) => {
                problems.push(Problem::new(Location::new(Arc::clone(&file), line), message));
                continue;
            }
        };
        if let Err(more) = node::parse(&text, &file) {
            problems.extend(more);
            continue;
        }
        let is_unwanted = |id: &Id| unwanted.contains(&(id.0, id.1.as_str()));
        let (mut after, mut has_manifests, mut line) = (String::new(), false, 1);
        for piece in pieces(&text) {
            let ids = ids_in(piece, &file);
            let kept = ids.iter().find(|id| !is_unwanted(id));
            match (ids.iter().find(|id| is_unwanted(id)), kept) {
                (Some(_), None) => {
                    let gone = ids
                        .into_iter()
                        .map(|(kind, name)| (kind.to_owned(), name, Action::Deleted));
                    change.resources.extend(gone);
                }
                (Some((kind, name)), Some((other, sibling))) => {
                    let message = format!("{kind} `{name}` is declared in one document with {other} `{sibling}`");
                    let problem = Problem::new(Location::new(Arc::clone(&file), line), message);
                    problems.push(problem.help("take it out there, or give each of them a document of its own"));
                }
                (None, _) => {
                    has_manifests |= node::parse(piece, &file).is_ok_and(|nodes| !nodes.is_empty());
                    after.push_str(piece);
                }
            }
            line += piece.matches('\n').count();
        }
        if after == text {
            continue;
        }
        // A file that is named by itself must stay, if without anything in it.
        let is_named = folders.iter().any(|folder| folder.as_path() == file.as_ref());
        let has_comments = after.lines().any(|line| line.trim_start().starts_with('#'));
        match has_manifests || has_comments {
            true => {}
            false if is_named => after = "\n".to_owned(),
            false => after.clear(),
        }
        change.files.insert(file.to_path_buf(), (Some(text), after));
    }
    match problems.is_empty() {
        true => Ok(change),
        false => Err(Problems::sorted(problems)),
    }
}

/// The documents of a file with all that stands between them: each but perhaps the first begins with the line that separates it from the one before.
fn pieces(text: &str) -> Vec<&str> {
    let mut found = vec![];
    let (mut begins, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if separates(line) && at > begins {
            found.extend(text.get(begins..at));
            begins = at;
        }
        at += line.len();
    }
    found.extend(text.get(begins..).filter(|rest| !rest.is_empty()));
    found
}

/// Whether a line separates documents.
fn separates(line: &str) -> bool {
    let line = line.trim_end_matches(['\n', '\r']);
    line == "---" || line.starts_with("--- ")
}

fn ids_in(text: &str, file: &Arc<Path>) -> Vec<Id> {
    let nodes = node::parse(text, file).unwrap_or_default();
    nodes.iter().flat_map(ids_of).collect()
}

fn shares_a_document(document: &Document, known: &Document) -> Problem {
    let (kind, name) = document.ids.first().cloned().unwrap_or(("manifest", String::new()));
    let message = format!(
        "{kind} `{name}` is declared at {}:{}, in one document with others",
        known.file.display(),
        known.line
    );
    Problem::new(Location::new(Arc::clone(&document.file), document.line), message)
        .help("change it there, or give each of them a document of its own")
}

/// Documents of a file, put together again.
fn joined(documents: &[Document]) -> String {
    let texts: Vec<&str> = documents
        .iter()
        .map(|document| document.text.trim_matches(['\n', '\r']))
        .filter(|text| !text.trim().is_empty())
        .collect();
    format!("{}\n", texts.join("\n---\n"))
}

/// All documents of all files, those without a manifest too; the files' own texts go into `texts`.
fn documents(paths: &[PathBuf], problems: &mut Vec<Problem>, texts: &mut BTreeMap<PathBuf, String>) -> Vec<Document> {
    let mut found = vec![];
    for file in files::find(paths, problems) {
        match files::read(&file) {
            Ok(text) => match node::parse(&text, &file) {
                Ok(_) => {
                    found.extend(cut(&file, &text));
                    texts.insert(file.to_path_buf(), text);
                }
                Err(more) => problems.extend(more),
            },
            Err((line, message)) => problems.push(Problem::new(Location::new(Arc::clone(&file), line), message)),
        }
    }
    found
}

/// Cuts a file, which is YAML as a whole, at the lines that separate its documents.
fn cut(file: &Arc<Path>, text: &str) -> Vec<Document> {
    let mut found = vec![];
    let mut current = String::new();
    let mut begins = 1;
    let mut finish = |text: &mut String, line: usize| {
        let text = std::mem::take(text);
        let ids = ids_in(&text, file);
        if !text.trim().is_empty() {
            found.push(Document {
                file: Arc::clone(file),
                line,
                text,
                ids,
            });
        }
    };
    for (index, line) in text.lines().enumerate() {
        if separates(line) {
            finish(&mut current, begins);
            begins = index + 2;
            // What stands behind the dashes belongs to the document.
            current.push_str(line.get(3..).unwrap_or_default().trim_start());
        } else {
            current.push_str(line);
        }
        current.push('\n');
    }
    finish(&mut current, begins);
    found
}

/// The kind and name of each manifest in a document.
fn ids_of(node: &Node) -> Vec<Id> {
    match &node.value {
        Value::List(nodes) => nodes.iter().flat_map(ids_of).collect(),
        Value::Map(_) => listing::id_of(node)
            .map(|(kind, name)| (kind.name(), name))
            .into_iter()
            .collect(),
        _ => vec![],
    }
}

/// Paths that would mean another file once the manifest lies elsewhere.
fn relative_paths(document: &Document) -> Vec<Problem> {
    const PATHS: [&str; 4] = ["path", "file", "files", "jwks"];
    fn walk(key: &str, node: &Node, found: &mut Vec<(usize, String)>) {
        match &node.value {
            Value::Map(entries) => entries.iter().for_each(|(key, value)| walk(&key.text, value, found)),
            Value::List(nodes) => nodes.iter().for_each(|node| walk(key, node, found)),
            Value::Text(text) => {
                let is_path = text.starts_with("./") || text.starts_with("../") || PATHS.contains(&key);
                if is_path && !text.starts_with('/') && !text.contains("://") && !text.starts_with('$') {
                    found.push((node.line, text.clone()));
                }
            }
            _ => {}
        }
    }
    // Only these kinds name files; a policy may well speak of a column `path`.
    let names_files = |kind: &&str| !matches!(*kind, "policy" | "policy-test" | "dataset" | "user" | "cluster");
    if !document.ids.iter().any(|(kind, _)| names_files(kind)) {
        return vec![];
    }
    let mut found = vec![];
    for node in node::parse(&document.text, &document.file).unwrap_or_default() {
        walk("", &node, &mut found);
    }
    found
        .into_iter()
        .map(|(line, text)| {
            let location = Location::new(Arc::clone(&document.file), document.line + line.saturating_sub(1));
            Problem::new(
                location,
                format!("the path `{text}` is relative to a manifest that will lie elsewhere"),
            )
            .help("write the whole path, beginning with `/`")
        })
        .collect()
}

fn same_file(left: &Path, right: &Path) -> bool {
    match (fs::canonicalize(left), fs::canonicalize(right)) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

impl Change {
    /// Writes every file: each beside itself first, then all are moved into place. If one cannot be, or is no longer what it was when the change
    /// was worked out, those before it are put back.
    ///
    /// # Errors
    /// A sentence that names the file; nothing has changed then.
    pub fn write(&self) -> Result<(), String> {
        let mut beside = vec![];
        let written = self.stage_all(&mut beside).and_then(|()| {
            self.expect_unchanged()?;
            let mut done = vec![];
            let settled = self.settle(&beside, &mut done);
            if settled.is_err() {
                done.iter().for_each(|(path, rights)| self.restore(path, *rights));
            }
            settled
        });
        if written.is_err() {
            for (_, beside) in &beside {
                let _ = fs::remove_file(beside);
            }
        }
        written
    }

    /// Writes each file that is to have a text beside itself.
    fn stage_all<'a>(&'a self, ready: &mut Vec<(&'a Path, PathBuf)>) -> Result<(), String> {
        for (path, (_, after)) in &self.files {
            if !after.is_empty() {
                let beside = beside(path);
                ready.push((path, beside.clone()));
                let staged = stage(&beside, after, rights_of(path));
                staged.map_err(|error| format!("`{}` cannot be written: {error}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Somebody may have edited a file since the change was worked out.
    fn expect_unchanged(&self) -> Result<(), String> {
        for (path, (before, _)) in &self.files {
            let now = match fs::read_to_string(path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(format!("`{}` cannot be read again: {error}", path.display())),
            };
            if now != *before {
                return Err(format!(
                    "`{}` was changed meanwhile; nothing is written: run it again",
                    path.display()
                ));
            }
        }
        Ok(())
    }

    /// Moves what was written beside the files into their places and removes those that are to go. What is done, with the rights of each file as it
    /// was, goes into `done`.
    fn settle<'a>(
        &'a self,
        ready: &[(&'a Path, PathBuf)],
        done: &mut Vec<(&'a Path, Option<u32>)>,
    ) -> Result<(), String> {
        for (path, beside) in ready {
            let rights = rights_of(path);
            let moved = fs::rename(beside, path);
            moved.map_err(|error| format!("`{}` cannot be replaced: {error}", path.display()))?;
            done.push((path, rights));
        }
        for (path, _) in self.files.iter().filter(|(_, (_, after))| after.is_empty()) {
            let rights = rights_of(path);
            let removed = fs::remove_file(path);
            removed.map_err(|error| format!("`{}` cannot be removed: {error}", path.display()))?;
            done.push((path, rights));
        }
        Ok(())
    }

    fn restore(&self, path: &Path, rights: Option<u32>) {
        let _ = match self.files.get(path) {
            Some((Some(before), _)) => stage(path, before, rights),
            _ => fs::remove_file(path),
        };
    }
}

/// A hidden file in the same folder: what watches the folder passes over it.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

/// Who may do what to a file, if it is there.
fn rights_of(path: &Path) -> Option<u32> {
    fs::metadata(path)
        .ok()
        .map(|metadata| metadata.permissions().mode() & 0o777)
}

/// Writes a text into a file, with these rights or else for its owner alone.
fn stage(path: &Path, text: &str, rights: Option<u32>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    // Not when it is opened: the process may be told to give less.
    file.set_permissions(fs::Permissions::from_mode(rights.unwrap_or(0o600)))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

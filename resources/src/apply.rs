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
    let mut held = documents(folders, &mut problems);
    let mut wanted = documents(given, &mut problems);
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
        let before = fs::read_to_string(&path).ok();
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

/// All documents of all files, those without a manifest too.
fn documents(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<Document> {
    let mut found = vec![];
    for file in files::find(paths, problems) {
        match files::read(&file) {
            Ok(text) => match node::parse(&text, &file) {
                Ok(_) => found.extend(cut(&file, &text)),
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
    /// Writes every file: each beside itself first, then all are moved into place. If one cannot be, those before it are put back.
    ///
    /// # Errors
    /// A sentence that names the file; nothing has changed then.
    pub fn write(&self) -> Result<(), String> {
        let mut ready = vec![];
        let removed = || {
            self.files
                .iter()
                .filter(|(_, (_, after))| after.is_empty())
                .map(|(path, _)| path)
        };
        let mut written = self.files.iter().filter(|(_, (_, after))| !after.is_empty());
        let staged = written.try_for_each(|(path, (_, after))| {
            let beside = beside(path);
            stage(path, &beside, after).map_err(|error| format!("`{}` cannot be written: {error}", path.display()))?;
            ready.push((path, beside));
            Ok(())
        });
        let moved = staged.and_then(|()| {
            for (index, (path, beside)) in ready.iter().enumerate() {
                if let Err(error) = fs::rename(beside, path) {
                    for (path, _) in ready.iter().take(index) {
                        self.restore(path);
                    }
                    return Err(format!("`{}` cannot be replaced: {error}", path.display()));
                }
            }
            for (index, path) in removed().enumerate() {
                if let Err(error) = fs::remove_file(path) {
                    let before = ready.iter().map(|(path, _)| *path).chain(removed().take(index));
                    before.for_each(|path| self.restore(path));
                    return Err(format!("`{}` cannot be removed: {error}", path.display()));
                }
            }
            Ok(())
        });
        if moved.is_err() {
            for (_, beside) in &ready {
                let _ = fs::remove_file(beside);
            }
        }
        moved
    }

    fn restore(&self, path: &Path) {
        let _ = match self.files.get(path) {
            // One that was removed comes back with the rights of its owner alone.
            Some((Some(before), _)) if !path.exists() => stage(path, path, before),
            Some((Some(before), _)) => fs::write(path, before),
            _ => fs::remove_file(path),
        };
    }
}

/// A hidden file in the same folder: what watches the folder passes over it.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

/// Writes a text beside a file, with the rights of the file or, for a new one, for its owner alone.
fn stage(path: &Path, beside: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let rights = fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(rights)
        .open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

//! What queries leave on disk while they run: files of their owner alone, without a hidden value.
//!
//! A query that is short of memory spills. Its folder of temporary files and the data folder are looked at the whole time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rusqlite::Connection;

use crate::minerva::{Minerva, program};

const HIDDEN: &str = "kanari";
/// How often a query is run at most until one of its files was seen.
const ATTEMPTS: usize = 40;
const VISIBLE: &str = "visible-row-";

const MANIFESTS: &str = "\
name: minerva
version: v1
type: cluster
cluster: {type: minerva, minerva: {limits: {query.max-memory: LIMIT}}}
---
{name: analyst, version: v1, type: user, user: {tags: [roles:id:user]}}
---
{name: readers, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [select], objects: {paths: ['dataos://{shop,lite}:**']}, allow: true}}}
---
{name: cluster, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: [read], objects: {tags: [['dataos:resource:cluster:**']]}, allow: true}}}
---
{name: shop, version: v2alpha, type: depot, depot: {type: FILE, file: {path: ../shop}}}
---
{name: lite, version: v2alpha, type: depot, depot: {type: SQLITE, sqlite: {path: ../lite.db}}}
---
{name: files, version: v1, type: policy, policy: {data: {type: filter, priority: 10, dataset_id: shop.none.big, selector: {user: {tags: [roles:id:user]}}, filters: [{column: region, operator: equals, value: EU}]}}}
---
{name: sqlite, version: v1, type: policy, policy: {data: {type: filter, priority: 10, dataset_id: lite.main.big, selector: {user: {tags: [roles:id:user]}}, filters: [{expression: \"concat(region, 'x') = 'EUx'\"}]}}}
---
{name: secrets, version: v1, type: policy, policy: {data: {type: mask, priority: 50, selector: {user: {tags: [roles:id:user]}, column: {names: [secret]}}, mask: {operator: redact}}}}
";

/// Row `number`: `id`, `region`, `secret`, `note`.
fn row(number: usize) -> [String; 4] {
    // Neighbours in the table are far from each other in every order.
    let (mixed, long) = (number * 7_919 % 1_000_003, "-".repeat(120));
    let (region, note) = match number % 2 {
        0 => ("US", format!("{HIDDEN}-row-{mixed:09}{long}")),
        _ => ("EU", format!("{VISIBLE}{mixed:09}{long}")),
    };
    [
        number.to_string(),
        region.to_owned(),
        format!("{HIDDEN}-mask-{mixed:09}"),
        note,
    ]
}

/// A folder with both tables, of whose rows the analyst sees half, and the manifests.
fn prepared(rows: usize, limit: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for inner in ["resources", "shop", "temporary"] {
        fs::create_dir(folder.path().join(inner)).unwrap();
    }
    let mut csv = "id,region,secret,note\n".to_owned();
    for number in 0..rows {
        csv.push_str(&row(number).join(","));
        csv.push('\n');
    }
    fs::write(folder.path().join("shop/big.csv"), csv).unwrap();
    let mut lite = Connection::open(folder.path().join("lite.db")).unwrap();
    lite.execute_batch("CREATE TABLE big (id int, region text, secret text, note text)")
        .unwrap();
    let transaction = lite.transaction().unwrap();
    {
        let mut insert = transaction.prepare("INSERT INTO big VALUES (?, ?, ?, ?)").unwrap();
        for number in 0..rows {
            insert.execute(row(number)).unwrap();
        }
    }
    transaction.commit().unwrap();
    fs::write(
        folder.path().join("resources/all.yaml"),
        MANIFESTS.replace("LIMIT", limit),
    )
    .unwrap();
    folder
}

/// What was found in the folders.
#[derive(Debug, Default)]
struct Found {
    /// Files and folders that others can do something with, and how.
    open: BTreeMap<PathBuf, u32>,
    /// Temporary files that hold a hidden value.
    telling: BTreeSet<PathBuf>,
    /// Temporary files that hold a visible one: without them nothing was looked at.
    spilled: BTreeSet<PathBuf>,
}

impl Found {
    fn add(&mut self, other: Found) {
        self.open.extend(other.open);
        self.telling.extend(other.telling);
        self.spilled.extend(other.spilled);
    }

    fn look(&mut self, folder: &Path, is_temporary: bool) {
        // What is gone meanwhile was somebody's a moment ago.
        for entry in fs::read_dir(folder).into_iter().flatten().map_while(Result::ok) {
            let path = entry.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                self.open.insert(path.clone(), mode);
            }
            if metadata.is_dir() {
                self.look(&path, is_temporary);
                continue;
            }
            let Ok(bytes) = fs::read(&path) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            if text.contains(HIDDEN) {
                self.telling.insert(path.clone());
            }
            if is_temporary && text.contains(VISIBLE) {
                self.spilled.insert(path);
            }
        }
    }
}

fn nothing_hidden_is_spilled(processes: usize, rows: usize, limit: &str) {
    let folder = prepared(rows, limit);
    let temporary = folder.path().join("temporary");
    let with_temporary = || {
        let mut command = program();
        command.env("TMPDIR", &temporary);
        command
    };
    let resources = folder.path().join("resources");
    let mut minerva = Minerva::start_as(with_temporary(), folder, &resources, usize::from(processes == 0));
    for _ in 0..processes {
        minerva.add_worker_as(with_temporary());
    }
    let key = minerva.key("analyst");
    let analyst = Some(("analyst", key.as_str()));
    let visible = rows / 2;
    for table in ["shop.none.big", "lite.main.big"] {
        for sql in [
            format!(
                "SELECT count(*), max(at) FROM (SELECT row_number() OVER (ORDER BY note, secret, id) AS at FROM {table})"
            ),
            format!(
                "SELECT count(*), sum(many) FROM (SELECT note, secret, id, count(*) AS many FROM {table} GROUP BY note, secret, id)"
            ),
        ] {
            let mut found = Found::default();
            // A file may be gone before it is looked at; then the same is done again.
            for _ in 0..ATTEMPTS {
                let ended = AtomicBool::new(false);
                thread::scope(|scope| {
                    let looking = scope.spawn(|| {
                        let mut found = Found::default();
                        while !ended.load(Ordering::Relaxed) {
                            found.look(&temporary, true);
                            found.look(&minerva.data(), false);
                        }
                        found
                    });
                    let output = minerva.run(analyst, &sql, "CSV");
                    ended.store(true, Ordering::Relaxed);
                    found.add(looking.join().unwrap());
                    let said = String::from_utf8_lossy(&output.stdout);
                    let errors = String::from_utf8_lossy(&output.stderr);
                    // One that needs even more than spilling saves may end so, and has left files until then.
                    assert!(
                        said.lines().nth(1) == Some(format!("{visible},{visible}").as_str())
                            || errors.contains("EXCEEDED_MEMORY_LIMIT"),
                        "{sql}\n{said}{errors}"
                    );
                });
                if !found.spilled.is_empty() {
                    break;
                }
            }
            assert!(
                !found.spilled.is_empty(),
                "{sql}: nothing was spilled, so that nothing is shown"
            );
            assert!(found.open.is_empty(), "{sql}: others may use {:?}", found.open);
            assert!(
                found.telling.is_empty(),
                "{sql}: hidden values are in {:?}",
                found.telling
            );
        }
    }
    let Minerva {
        server,
        workers,
        folder,
    } = minerva;
    for server in workers.into_iter().chain([server]) {
        let (orderly, log) = server.leave();
        assert!(orderly, "{log}");
    }
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    drop(folder);
}

#[test]
fn nothing_hidden_is_spilled_by_one_process() {
    nothing_hidden_is_spilled(0, 240_000, "32MB");
}

#[test]
fn nothing_hidden_is_spilled_by_worker_processes() {
    nothing_hidden_is_spilled(2, 480_000, "32MB");
}

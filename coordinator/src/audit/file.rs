//! The file of records: SQLite in the data folder, apart from the other state.
//!
//! In: rows to write, or what is wanted. Out: rows, one after the other, never all at once. Only the thread of `audit.rs` writes; each reader has
//! a connection of its own that cannot write.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use rusqlite::{CachedStatement, Connection, OpenFlags, Row, ToSql, Transaction, params, types::Type};

use super::{
    owner::Owner,
    record::{Attempt, QueryRecord},
};

/// How many attempts to log in are kept; somebody who tries for ever must not fill the disk.
const MOST_ATTEMPTS: i64 = 100_000;
/// How many different attempts of one minute are kept; more are counted together.
const MOST_IN_A_MINUTE: i64 = 1_000;
/// The layout of the file. A newer program may change it; an older one must not write it.
const LAYOUT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS query_audit (
        query_id TEXT PRIMARY KEY, user TEXT NOT NULL, impersonator TEXT, door TEXT NOT NULL, client_address TEXT NOT NULL, source TEXT,
        cluster TEXT NOT NULL, statement_kind TEXT, query TEXT NOT NULL, tables TEXT NOT NULL, resources_version TEXT, state TEXT NOT NULL,
        error_code TEXT, error_message TEXT, queued INTEGER NOT NULL, planning INTEGER NOT NULL, elapsed INTEGER NOT NULL,
        created INTEGER NOT NULL, ended INTEGER, rows INTEGER NOT NULL, bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS query_audit_created ON query_audit (created, query_id);
    CREATE INDEX IF NOT EXISTS query_audit_user ON query_audit (user, created, query_id);
    CREATE TABLE IF NOT EXISTS authentication_audit (
        minute INTEGER NOT NULL, door TEXT NOT NULL, client_address TEXT NOT NULL, user TEXT NOT NULL, error_code TEXT NOT NULL,
        error_message TEXT NOT NULL, attempts INTEGER NOT NULL,
        PRIMARY KEY (minute, door, client_address, user, error_code, error_message)
    ) STRICT;";

const COLUMNS: &str = "query_id, user, impersonator, door, client_address, source, cluster, statement_kind, query, tables, resources_version, \
     state, error_code, error_message, queued, planning, elapsed, created, ended, rows, bytes";

/// Which records are wanted; newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whose records the reader may see; `None` for everybody's.
    pub(crate) owner: Option<Owner>,
    /// Whose are asked for.
    pub(crate) user: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) query_id: Option<String>,
    /// The earliest moment, itself included.
    pub(crate) from: Option<i64>,
    /// The latest moment, itself included.
    pub(crate) to: Option<i64>,
    /// Only what is older than this query.
    pub(crate) older_than: Option<String>,
    pub(crate) limit: Option<usize>,
}

/// Opens the file for writing, makes it when it is not there, and closes the records that a crash left open.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    if !path.exists() {
        // The journal beside it gets the same rights.
        let made = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path);
        if let Err(error) = made {
            return Err(rusqlite::Error::InvalidPath(
                format!("{}: {error}", path.display()).into(),
            ));
        }
    }
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let layout: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if layout > LAYOUT {
        return Err(rusqlite::Error::InvalidPath(
            format!("{}: written by a newer Minerva", path.display()).into(),
        ));
    }
    connection
        .execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    connection.execute_batch(TABLES)?;
    connection.execute_batch(&format!("PRAGMA user_version = {LAYOUT}"))?;
    connection.execute(
        "UPDATE query_audit SET state = 'FAILED', error_code = 'GENERIC_INTERNAL_ERROR',
         error_message = 'the coordinator ended before the query did' WHERE ended IS NULL",
        [],
    )?;
    connection.execute(
        "UPDATE query_audit SET ended = created + elapsed WHERE ended IS NULL",
        [],
    )?;
    Ok(connection)
}

/// Writes all of it or nothing.
pub(super) fn write(
    connection: &mut Connection,
    queries: &[QueryRecord],
    attempts: &[(Attempt, i64)],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(&format!(
            "INSERT OR REPLACE INTO query_audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ))?;
        for query in queries {
            insert.execute(params![
                query.query_id,
                query.user,
                query.impersonator,
                query.door,
                query.client_address,
                query.source,
                query.cluster,
                query.statement_kind,
                query.query,
                query.tables,
                query.resources_version,
                query.state,
                query.error_code,
                query.error_message,
                query.queued,
                query.planning,
                query.elapsed,
                query.created,
                query.ended,
                query.rows,
                query.bytes,
            ])?;
        }
    }
    count(&transaction, attempts)?;
    transaction.commit()
}

/// Counts attempts to log in: one that is known already, or is new in a minute that has few. Others are counted together.
fn count(transaction: &Transaction<'_>, attempts: &[(Attempt, i64)]) -> rusqlite::Result<()> {
    let mut known = transaction.prepare_cached(
        "UPDATE authentication_audit SET attempts = attempts + ?1
         WHERE minute = ?2 AND door = ?3 AND client_address = ?4 AND user = ?5 AND error_code = ?6 AND error_message = ?7",
    )?;
    let mut add = transaction.prepare_cached(
        "INSERT INTO authentication_audit (attempts, minute, door, client_address, user, error_code, error_message)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut different = transaction.prepare_cached("SELECT count(*) FROM authentication_audit WHERE minute = ?1")?;
    let mut minutes: HashMap<i64, i64> = HashMap::new();
    for (attempt, times) in attempts {
        let write = |statement: &mut CachedStatement<'_>, attempt: &Attempt| {
            let user = attempt.user.as_deref().unwrap_or_default();
            statement.execute(params![
                times,
                attempt.minute,
                attempt.door,
                attempt.client_address,
                user,
                attempt.error_code,
                attempt.error_message,
            ])
        };
        if write(&mut known, attempt)? > 0 {
            continue;
        }
        let there = match minutes.entry(attempt.minute) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(minute) => minute.insert(different.query_row(params![attempt.minute], |row| row.get(0))?),
        };
        if *there < MOST_IN_A_MINUTE {
            *there += 1;
            write(&mut add, attempt)?;
            continue;
        }
        let several = attempt.clone().of_several();
        if write(&mut known, &several)? == 0 {
            write(&mut add, &several)?;
        }
    }
    Ok(())
}

/// Forgets what is older than `before`, a little at a time; true when there was nothing left to forget.
pub(super) fn forget(connection: &Connection, before: i64) -> rusqlite::Result<bool> {
    let forgotten = connection.execute(
        "DELETE FROM query_audit WHERE rowid IN (SELECT rowid FROM query_audit WHERE created < ?1 AND ended IS NOT NULL LIMIT 10000)",
        params![before],
    )?;
    connection.execute("DELETE FROM authentication_audit WHERE minute < ?1", params![before])?;
    connection.execute(
        "DELETE FROM authentication_audit WHERE rowid IN
         (SELECT rowid FROM authentication_audit ORDER BY minute DESC LIMIT -1 OFFSET ?1)",
        params![MOST_ATTEMPTS],
    )?;
    // Each step gives one page back.
    let mut pages = connection.prepare("PRAGMA incremental_vacuum(1000)")?;
    let mut pages = pages.query([])?;
    while pages.next()?.is_some() {}
    Ok(forgotten < 10_000)
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// Hands over one record after the other, newest first, until `each` has had enough.
pub(super) fn read(path: &Path, wanted: &Wanted, mut each: impl FnMut(QueryRecord) -> bool) -> rusqlite::Result<()> {
    let connection = reader(path)?;
    let mut conditions: Vec<&str> = Vec::new();
    let mut values: Vec<&dyn ToSql> = Vec::new();
    for (condition, value) in wanted.owner.iter().flat_map(Owner::conditions) {
        conditions.push(condition);
        values.push(value);
    }
    let texts = [
        ("user = ?", &wanted.user),
        ("state = ?", &wanted.state),
        ("query_id = ?", &wanted.query_id),
        (
            "(created, query_id) < (SELECT created, query_id FROM query_audit WHERE query_id = ?)",
            &wanted.older_than,
        ),
    ];
    for (condition, value) in texts {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value);
        }
    }
    for (condition, value) in [("created >= ?", &wanted.from), ("created <= ?", &wanted.to)] {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value);
        }
    }
    let mut sql = format!("SELECT {COLUMNS} FROM query_audit");
    if !conditions.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&conditions.join(" AND "));
    }
    sql.push_str(" ORDER BY created DESC, query_id DESC");
    if let Some(limit) = wanted.limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(values.as_slice())?;
    while let Some(row) = rows.next()? {
        if !each(record(row)?) {
            break;
        }
    }
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<QueryRecord> {
    Ok(QueryRecord {
        query_id: row.get(0)?,
        user: row.get(1)?,
        impersonator: row.get(2)?,
        door: row.get(3)?,
        client_address: row.get(4)?,
        source: row.get(5)?,
        cluster: row.get(6)?,
        statement_kind: row.get(7)?,
        query: row.get(8)?,
        tables: row.get(9)?,
        resources_version: row.get(10)?,
        state: row.get(11)?,
        error_code: row.get(12)?,
        error_message: row.get(13)?,
        queued: row.get(14)?,
        planning: row.get(15)?,
        elapsed: row.get(16)?,
        created: row.get(17)?,
        ended: row.get(18)?,
        rows: row.get(19)?,
        bytes: row.get(20)?,
    })
}

/// The attempts to log in, newest first, with how often each was made.
pub(super) fn attempts(path: &Path) -> rusqlite::Result<Vec<(Attempt, i64)>> {
    let connection = reader(path)?;
    let mut statement = connection.prepare(
        "SELECT minute, door, client_address, user, error_code, error_message, attempts FROM authentication_audit
         ORDER BY minute DESC LIMIT ?1",
    )?;
    let rows = statement.query_map(params![MOST_ATTEMPTS], |row| {
        let user: String = row.get(3)?;
        let attempt = Attempt {
            minute: row.get(0)?,
            door: row.get(1)?,
            client_address: row.get(2)?,
            user: (!user.is_empty()).then_some(user),
            error_code: row.get(4)?,
            error_message: row.get(5)?,
        };
        Ok((attempt, row.get(6)?))
    })?;
    rows.collect()
}

/// What went wrong with the file, without what stands in it.
pub(super) fn why(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::InvalidPath(text) => text.display().to_string(),
        rusqlite::Error::FromSqlConversionFailure(column, _, _) => format!("column {column} holds something else"),
        rusqlite::Error::InvalidColumnType(column, _, Type::Null) => format!("column {column} is empty"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(id: &str, user: &str, created: i64, ended: Option<i64>) -> QueryRecord {
        QueryRecord {
            query_id: id.to_owned(),
            user: user.to_owned(),
            state: "FINISHED".to_owned(),
            tables: "[]".to_owned(),
            created,
            ended,
            ..QueryRecord::default()
        }
    }

    fn ids(path: &Path, wanted: &Wanted) -> Vec<String> {
        let mut found = Vec::new();
        read(path, wanted, |record| {
            found.push(record.query_id);
            true
        })
        .unwrap();
        found
    }

    #[test]
    fn records_are_kept_found_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.db");
        let mut connection = open(&path).unwrap();
        let queries = [
            query("a", "jane", 1, Some(2)),
            query("b", "john", 2, None),
            query("c", "jane", 2, Some(3)),
        ];
        write(&mut connection, &queries, &[]).unwrap();
        write(&mut connection, &[query("a", "jane", 1, Some(9))], &[]).unwrap();
        let all = Wanted::default();
        let mut principal = minerva_policy::Principal::new("jane", [], Default::default());
        let jane = Owner::themselves(&principal);
        principal.impersonator = Some("desk".to_owned());
        let acting = Owner::themselves(&principal);
        assert_eq!(ids(&path, &all), ["c", "b", "a"]);
        let only = |wanted: Wanted| ids(&path, &wanted);
        assert_eq!(
            only(Wanted {
                owner: Some(jane.clone()),
                ..all.clone()
            }),
            ["c", "a"]
        );
        assert_eq!(
            only(Wanted {
                owner: Some(jane.clone()),
                user: Some("john".into()),
                ..all.clone()
            }),
            [""; 0]
        );
        let by_desk = QueryRecord {
            impersonator: Some("desk".to_owned()),
            ..query("d", "jane", 0, Some(1))
        };
        write(&mut connection, &[by_desk], &[]).unwrap();
        for (owner, seen) in [(&jane, vec!["c", "a", "d"]), (&acting, vec!["d"])] {
            let wanted = Wanted {
                owner: Some(owner.clone()),
                ..all.clone()
            };
            assert_eq!(only(wanted), seen, "{owner:?}");
        }
        forget(&connection, 1).unwrap();
        assert_eq!(only(all.clone()), ["c", "b", "a"]);
        assert_eq!(
            only(Wanted {
                from: Some(2),
                to: Some(2),
                ..all.clone()
            }),
            ["c", "b"]
        );
        assert_eq!(
            only(Wanted {
                older_than: Some("c".into()),
                ..all.clone()
            }),
            ["b", "a"]
        );
        assert_eq!(
            only(Wanted {
                limit: Some(1),
                ..all.clone()
            }),
            ["c"]
        );
        assert_eq!(
            only(Wanted {
                query_id: Some("' OR 1=1 --".into()),
                ..all.clone()
            }),
            [""; 0]
        );

        // A query that was running when the process died is closed by the next start.
        drop(connection);
        let connection = open(&path).unwrap();
        let mut states = Vec::new();
        read(
            &path,
            &Wanted {
                query_id: Some("b".into()),
                ..all.clone()
            },
            |record| {
                states.push((record.state, record.error_message, record.ended));
                true
            },
        )
        .unwrap();
        assert_eq!(states[0].0, "FAILED");
        assert!(states[0].1.as_ref().unwrap().contains("before the query did") && states[0].2.is_some());

        assert!(forget(&connection, 2).unwrap());
        assert_eq!(ids(&path, &all), ["c", "b"]);
    }

    #[test]
    fn the_same_attempt_is_counted_and_a_reader_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.db");
        let mut connection = open(&path).unwrap();
        let attempt = Attempt {
            minute: 60_000,
            door: "http".into(),
            client_address: "127.0.0.1".into(),
            user: Some("jane".into()),
            error_code: "INVALID_CREDENTIALS".into(),
            error_message: "wrong".into(),
        };
        write(&mut connection, &[], &[(attempt.clone(), 2)]).unwrap();
        write(&mut connection, &[], &[(attempt.clone(), 3)]).unwrap();
        assert_eq!(attempts(&path).unwrap(), [(attempt.clone(), 5)]);
        assert!(
            reader(&path)
                .unwrap()
                .execute("DELETE FROM authentication_audit", [])
                .is_err()
        );
        assert_eq!(
            std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o777,
            0o600
        );
    }

    #[test]
    fn a_flood_of_names_does_not_grow_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.db");
        let mut connection = open(&path).unwrap();
        let attempt = |minute: i64, number: i64| Attempt {
            minute,
            door: "flight".into(),
            client_address: format!("10.0.0.{}", number % 100),
            user: Some(format!("user{number}")),
            error_code: "INVALID_CREDENTIALS".into(),
            error_message: "wrong".into(),
        };
        let most = MOST_IN_A_MINUTE;
        for batch in 0..30 {
            let numbers = batch * 200..(batch + 1) * 200;
            let some: Vec<_> = numbers.map(|number| (attempt(60_000, number), 1)).collect();
            write(&mut connection, &[], &some).unwrap();
        }
        let kept = attempts(&path).unwrap();
        assert_eq!(kept.len() as i64, most + 1);
        assert_eq!(
            kept.iter().map(|(_, times)| times).sum::<i64>(),
            6_000,
            "each is counted"
        );
        let several = attempt(60_000, 0).of_several();
        assert!(kept.contains(&(several, 6_000 - most)));
        // What is known goes on being counted by itself, and another minute begins anew.
        write(
            &mut connection,
            &[],
            &[(attempt(60_000, 3), 2), (attempt(120_000, 9_999), 1)],
        )
        .unwrap();
        let kept = attempts(&path).unwrap();
        assert!(kept.contains(&(attempt(60_000, 3), 3)) && kept.contains(&(attempt(120_000, 9_999), 1)));
    }

    #[test]
    fn the_file_gives_back_what_was_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = open(&folder.path().join("audit.db")).unwrap();
        let pages = |connection: &Connection| -> i64 {
            connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
        };
        let empty = pages(&connection);
        let many: Vec<_> = (0..2_000)
            .map(|number| QueryRecord {
                query: "x".repeat(1_000),
                ..query(&number.to_string(), "jane", 1, Some(2))
            })
            .collect();
        write(&mut connection, &many, &[]).unwrap();
        let full = pages(&connection);
        assert!(full > empty + 400, "{empty} {full}");
        assert!(forget(&connection, 2).unwrap());
        assert!(pages(&connection) < empty + 20, "{empty} {full} {}", pages(&connection));
    }
}

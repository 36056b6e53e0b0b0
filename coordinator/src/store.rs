//! What a coordinator keeps: API keys made by command, tags that followed columns into new tables, and the text of views. A SQLite file in
//! the data folder.
//!
//! In: hashes of keys, never keys. They are held in memory as well, since every call asks for one: this is the only process that writes the
//! file. Deliberately absent: what is declared in manifests.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use minerva_policy::DerivedTags;
use minerva_resources::Address;
use rusqlite::{Connection, params};

use crate::{
    error::{Code, QueryError, Result},
    gateway::auth::KeyHash,
};

/// The coordinator's own state.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Mutex<Connection>,
    /// Whose key has which hash, and when it ends.
    owners: RwLock<HashMap<KeyHash, (String, i64)>>,
}

/// One API key that was made by command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Whose it is.
    pub user: String,
    /// How its user calls it.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

impl Store {
    /// Opens or creates the store's file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // It holds hashes of keys. The journals beside it get the same rights.
        let made = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path);
        let private = made.and_then(|_| fs::set_permissions(path, fs::Permissions::from_mode(0o600)));
        private.map_err(|error| {
            let message = format!("the state file `{}` cannot be made: {error}", path.display());
            QueryError::new(Code::GenericInternalError, message)
        })?;
        let connection = Connection::open(path).map_err(|error| failed(&error))?;
        connection
            .busy_timeout(Duration::from_secs(5))
            .map_err(|error| failed(&error))?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE IF NOT EXISTS api_key (
                     user TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, expires INTEGER NOT NULL,
                     PRIMARY KEY (user, name)
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS derived_tag (
                     depot TEXT NOT NULL, collection TEXT NOT NULL, dataset TEXT NOT NULL, path TEXT NOT NULL, tag TEXT NOT NULL,
                     origin TEXT NOT NULL, PRIMARY KEY (depot, collection, dataset, path, tag, origin)
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS view (
                     depot TEXT NOT NULL, collection TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, definition TEXT NOT NULL,
                     PRIMARY KEY (depot, collection, name)
                 ) STRICT;",
            )
            .map_err(|error| failed(&error))?;
        let store = Self {
            connection: Mutex::new(connection),
            owners: RwLock::default(),
        };
        store.read_owners()?;
        Ok(store)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what is in memory what is in the file.
    fn read_owners(&self) -> Result<()> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT sha256, user, expires FROM api_key")
            .map_err(|error| failed(&error))?;
        let rows = statement
            .query_map(params![], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
            })
            .map_err(|error| failed(&error))?;
        let mut owners = HashMap::new();
        for row in rows {
            let (sha256, user, expires) = row.map_err(|error| failed(&error))?;
            if let Some(hash) = KeyHash::from_hex(&sha256) {
                owners.insert(hash, (user, expires));
            }
        }
        *self.owners.write().unwrap_or_else(PoisonError::into_inner) = owners;
        Ok(())
    }

    /// Keeps a key's hash.
    pub(crate) fn add_key(&self, key: &StoredKey, sha256: &KeyHash) -> Result<()> {
        let added = self
            .connection()
            .execute(
                "INSERT INTO api_key (user, name, sha256, created, expires) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                params![key.user, key.name, sha256.hex(), key.created, key.expires],
            )
            .map_err(|error| failed(&error))?;
        if added == 0 {
            let message = format!("user `{}` has an API key `{}` already", key.user, key.name);
            return Err(QueryError::new(Code::InvalidArgument, message)
                .with_hint("choose another name with -n, or delete that key first"));
        }
        self.read_owners()
    }

    /// The keys of one user, or of all.
    pub(crate) fn keys(&self, user: Option<&str>) -> Result<Vec<StoredKey>> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "SELECT user, name, created, expires FROM api_key WHERE ?1 IS NULL OR user = ?1 ORDER BY user, name",
            )
            .map_err(|error| failed(&error))?;
        let rows = statement
            .query_map(params![user], |row| {
                Ok(StoredKey {
                    user: row.get(0)?,
                    name: row.get(1)?,
                    created: row.get(2)?,
                    expires: row.get(3)?,
                })
            })
            .map_err(|error| failed(&error))?;
        rows.collect::<Result<_, _>>().map_err(|error| failed(&error))
    }

    /// Forgets a key; false when there was none.
    pub(crate) fn delete_key(&self, user: &str, name: &str) -> Result<bool> {
        let deleted = self
            .connection()
            .execute("DELETE FROM api_key WHERE user = ?1 AND name = ?2", params![user, name])
            .map_err(|error| failed(&error))?;
        self.read_owners()?;
        Ok(deleted > 0)
    }

    /// The tags that followed columns into tables.
    pub(crate) fn derived_tags(&self) -> Result<DerivedTags> {
        let connection = self.connection();
        let mut tags = DerivedTags::new();
        let mut read = || -> rusqlite::Result<()> {
            let mut statement = connection.prepare("SELECT depot, collection, dataset, path, tag FROM derived_tag")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |at: usize| row.get::<_, String>(at);
                let columns = tags.entry(Address::new(text(0)?, text(1)?, text(2)?)).or_default();
                columns.entry(text(3)?).or_default().insert(text(4)?);
            }
            Ok(())
        };
        read().map_err(|error| failed(&error))?;
        Ok(tags)
    }

    /// Keeps tags of a table's columns; `origin` is the statement that brought them.
    pub(crate) fn add_tags(
        &self,
        address: &Address,
        tags: &BTreeMap<String, BTreeSet<String>>,
        origin: &str,
    ) -> Result<()> {
        let mut connection = self.connection();
        let mut write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            for (path, tags) in tags {
                for tag in tags {
                    transaction.execute(
                        "INSERT INTO derived_tag VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                        params![address.depot, address.collection, address.dataset, path, tag, origin],
                    )?;
                }
            }
            transaction.commit()
        };
        write().map_err(|error| failed(&error))
    }

    /// The statements that brought tags to a table.
    pub(crate) fn origins_of_tags(&self, address: &Address) -> Result<Vec<String>> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<Vec<String>> {
            let sql = "SELECT DISTINCT origin FROM derived_tag WHERE depot = ?1 AND collection = ?2 AND dataset = ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let origins = statement.query_map(params![address.depot, address.collection, address.dataset], |row| {
                row.get(0)
            })?;
            origins.collect()
        };
        read().map_err(|error| failed(&error))
    }

    /// Forgets the tags that a statement brought to a table.
    pub(crate) fn forget_tags(&self, address: &Address, origin: &str) -> Result<()> {
        let sql = "DELETE FROM derived_tag WHERE depot = ?1 AND collection = ?2 AND dataset = ?3 AND origin = ?4";
        self.connection()
            .execute(sql, params![address.depot, address.collection, address.dataset, origin])
            .map(drop)
            .map_err(|error| failed(&error))
    }

    /// The views of all depots: whose they are, and their definitions.
    pub(crate) fn views(&self) -> Result<Vec<(Address, String, String)>> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<Vec<(Address, String, String)>> {
            let mut statement = connection.prepare("SELECT depot, collection, name, owner, definition FROM view")?;
            let views = statement.query_map([], |row| {
                let text = |at: usize| row.get::<_, String>(at);
                Ok((Address::new(text(0)?, text(1)?, text(2)?), text(3)?, text(4)?))
            })?;
            views.collect()
        };
        read().map_err(|error| failed(&error))
    }

    /// Keeps a view; false when there is one of its name that is not to be replaced.
    pub(crate) fn keep_view(&self, address: &Address, owner: &str, definition: &str, replace: bool) -> Result<bool> {
        let sql = match replace {
            true => "INSERT OR REPLACE INTO view VALUES (?1, ?2, ?3, ?4, ?5)",
            false => "INSERT INTO view VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        };
        let values = params![address.depot, address.collection, address.dataset, owner, definition];
        let kept = self.connection().execute(sql, values).map_err(|error| failed(&error))?;
        Ok(kept > 0)
    }

    /// Forgets a view; false when there is none.
    pub(crate) fn forget_view(&self, address: &Address) -> Result<bool> {
        let sql = "DELETE FROM view WHERE depot = ?1 AND collection = ?2 AND name = ?3";
        let values = params![address.depot, address.collection, address.dataset];
        let forgotten = self.connection().execute(sql, values).map_err(|error| failed(&error))?;
        Ok(forgotten > 0)
    }

    /// Whose key has this hash, and when it ends.
    pub(crate) fn find_key(&self, hash: &KeyHash) -> Option<(String, i64)> {
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        owners.get(hash).cloned()
    }
}

fn failed(error: &rusqlite::Error) -> QueryError {
    let full = matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
    match full {
        true => {
            QueryError::new(Code::InsufficientDisk, "the disk of the data folder is full").with_hint("free space there")
        }
        false => QueryError::new(
            Code::GenericInternalError,
            format!("the data folder's store failed: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_hash_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        let key = StoredKey {
            user: "jane".into(),
            name: "laptop".into(),
            created: 1,
            expires: 2,
        };
        let (one, other) = (KeyHash::of("one"), KeyHash::of("other"));
        store.add_key(&key, &one).unwrap();
        assert!(store.add_key(&key, &other).is_err(), "the same name twice");
        assert_eq!(store.find_key(&one), Some(("jane".into(), 2)));
        assert_eq!(store.find_key(&other), None);
        assert_eq!(store.keys(Some("jane")).unwrap(), vec![key]);
        drop(store);
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        assert_eq!(store.find_key(&one), Some(("jane".into(), 2)), "after a restart");
        assert!(store.delete_key("jane", "laptop").unwrap());
        assert!(!store.delete_key("jane", "laptop").unwrap());
        assert_eq!(store.find_key(&one), None);
    }
}

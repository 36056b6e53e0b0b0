//! What a coordinator keeps: API keys made by command. A SQLite file in the data folder.
//!
//! In: hashes of keys, never keys. They are held in memory as well, since every call asks for one: this is the only process that writes the
//! file. Deliberately absent: what is declared in manifests.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

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

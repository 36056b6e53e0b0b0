//! Prepared statements: SQL text and bound values, never a plan.
//!
//! In: SQL text, then parameter rows. Out: what to run. A statement is planned anew each time, since policies may have changed since.
//! It belongs to the session it was prepared in and ends with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
};

use datafusion::scalar::ScalarValue;
use minerva_policy::Principal;
use tonic::Status;

use super::{
    handles::{Handle, locked},
    sessions::ClientSession,
    status::{invalid, unknown},
};

/// How many statements a session may keep prepared: a client that never closes them is told, instead of filling the memory.
const PER_SESSION: usize = 10_000;

/// One prepared statement.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) client: Arc<ClientSession>,
    pub(super) sql: String,
    /// One inner vector for each bound row; empty before anything is bound.
    pub(super) rows: Mutex<Vec<Vec<ScalarValue>>>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.client.prepared.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Prepared {
    /// The values for a query, which takes one row.
    pub(super) fn one_row(&self) -> Result<Vec<ScalarValue>, Status> {
        let rows = locked(&self.rows);
        match rows.as_slice() {
            [] => Ok(Vec::new()),
            [row] => Ok(row.clone()),
            many => Err(invalid(format!(
                "{} rows of parameters are bound and a query takes one; bind one row at a time, or execute the statement as an update",
                many.len()
            ))),
        }
    }

    /// The values for an update, which is executed for each row.
    pub(super) fn all_rows(&self) -> Vec<Vec<ScalarValue>> {
        let rows = locked(&self.rows).clone();
        if rows.is_empty() { vec![Vec::new()] } else { rows }
    }
}

/// Every prepared statement of every session.
#[derive(Debug, Default)]
pub(super) struct PreparedStatements {
    statements: Mutex<HashMap<Handle, Arc<Prepared>>>,
}

impl PreparedStatements {
    /// Keeps a statement.
    pub(super) fn put(&self, client: &Arc<ClientSession>, sql: &str) -> Result<Handle, Status> {
        let before = client.prepared.fetch_add(1, Ordering::Relaxed);
        let prepared = Prepared {
            client: Arc::clone(client),
            sql: sql.to_owned(),
            rows: Mutex::default(),
        };
        if before >= PER_SESSION {
            return Err(invalid(format!(
                "{before} statements are prepared in this session; close some before preparing more"
            )));
        }
        let handle = Handle::random();
        locked(&self.statements).insert(handle, Arc::new(prepared));
        Ok(handle)
    }

    /// The caller's statement behind a handle.
    pub(super) fn get(&self, handle: &[u8], caller: &Principal) -> Result<Arc<Prepared>, Status> {
        let found = Handle::read(handle).and_then(|handle| locked(&self.statements).get(&handle).cloned());
        found.filter(|prepared| prepared.client.owner() == caller.full_name()).ok_or_else(|| {
            unknown("the prepared statement is unknown: it was closed, its session ended, or it was never prepared here; prepare it again")
        })
    }

    /// Forgets a statement; closing one that is gone already is no error.
    pub(super) fn close(&self, handle: &[u8], caller: &Principal) {
        if self.get(handle, caller).is_ok()
            && let Some(handle) = Handle::read(handle)
        {
            locked(&self.statements).remove(&handle);
        }
    }

    /// Forgets the statements of sessions that have ended.
    pub(super) fn sweep(&self, closed: &[Handle]) {
        locked(&self.statements).retain(|_, prepared| !closed.contains(&prepared.client.id()));
    }
}

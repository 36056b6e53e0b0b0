//! Connections that wait for their next user.
//!
//! In: a connection on which every statement is done. Out: the same connection, unless the server closed it meanwhile. A task waits with each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::runtime::SpawnedTask;
use futures::future::{Either, select};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::{Client, Statement};

use super::connection::{Connection, Driver};
use super::place::Place;
use crate::slots::Slot;

/// How long a server may take to end a transaction that is done.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that nobody uses. A task waits with it for the server to close it, or for its next user.
pub(super) struct Parked {
    pub(super) client: Arc<Client>,
    place: Place,
    asked: Option<Statement>,
    pub(super) since: Instant,
    task: SpawnedTask<Option<Driver>>,
    wanted: oneshot::Sender<()>,
    pub(super) slot: Slot,
}

impl Parked {
    pub(super) fn new(connection: Connection, in_transaction: bool) -> Parked {
        let (wanted, signal) = oneshot::channel();
        let Connection {
            client,
            mut driver,
            place,
            asked,
            slot,
            ..
        } = connection;
        let ending = in_transaction.then(|| Arc::clone(&client));
        let task = SpawnedTask::spawn(async move {
            if let Some(ending) = ending {
                // Answered before anybody else asks: a pooler may give what follows without a pause to another session.
                let ended = driver.drive(ending.batch_execute("ROLLBACK"));
                timeout(END_TIMEOUT, ended).await.ok()?.ok()?;
            }
            match select(driver.0?, signal).await {
                Either::Left(_) => None,
                Either::Right((_, running)) => Some(Driver(Some(running))),
            }
        });
        Parked {
            client,
            place,
            asked,
            since: Instant::now(),
            task,
            wanted,
            slot,
        }
    }

    /// The connection; its slot, if it was closed meanwhile.
    pub(super) async fn wake(self) -> Result<Connection, Slot> {
        // If nobody waits for the signal, the connection is closed, which the task says.
        let _ = self.wanted.send(());
        match self.task.join().await {
            Ok(Some(driver)) => Ok(Connection {
                client: self.client,
                driver,
                place: self.place,
                asked: self.asked,
                is_used: true,
                slot: self.slot,
            }),
            Ok(None) | Err(_) => Err(self.slot),
        }
    }

    /// Closes it.
    pub(super) async fn close(self) {
        if let Ok(connection) = self.wake().await {
            connection.close().await;
        }
    }
}

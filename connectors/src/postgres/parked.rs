//! Connections that wait for their next user.
//!
//! In: a connection on which every statement is done. Out: the same connection, unless the server closed it meanwhile. A task ends its transaction. After that nobody
//! waits with it, and so its next user waits for no other thread: whoever looks at a connection finds out whether the server has closed it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use datafusion::common::runtime::SpawnedTask;
use tokio::time::timeout;
use tokio_postgres::{Client, Statement};

use super::connection::{Connection, Driver};
use super::place::Place;
use crate::slots::Slot;

/// How long a server may take to end a transaction that is done.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that nobody uses.
pub(super) struct Parked {
    client: Arc<Client>,
    place: Place,
    asked: Option<Statement>,
    pub(super) since: Instant,
    state: State,
    pub(super) slot: Slot,
}

enum State {
    /// Its transaction is being ended.
    Ending(SpawnedTask<Option<Driver>>),
    Idle(Driver),
    Closed,
}

impl Parked {
    pub(super) fn new(connection: Connection, in_transaction: bool) -> Parked {
        let Connection {
            client,
            mut driver,
            place,
            asked,
            slot,
            ..
        } = connection;
        let ending = in_transaction.then(|| Arc::clone(&client));
        let state = match ending {
            Some(ending) => State::Ending(SpawnedTask::spawn(async move {
                // Answered before anybody else asks: a pooler may give what follows without a pause to another session.
                let ended = driver.drive(ending.batch_execute("ROLLBACK"));
                timeout(END_TIMEOUT, ended).await.ok()?.ok()?;
                Some(driver)
            })),
            None => State::Idle(driver),
        };
        Parked {
            client,
            place,
            asked,
            since: Instant::now(),
            state,
            slot,
        }
    }

    /// Whether the server is known to have closed it.
    pub(super) fn is_closed(&mut self) -> bool {
        if let State::Ending(task) = &mut self.state {
            match Pin::new(task).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(Some(driver))) => self.state = State::Idle(driver),
                Poll::Ready(_) => self.state = State::Closed,
                Poll::Pending => {}
            }
        }
        match &mut self.state {
            State::Ending(_) => self.client.is_closed(),
            State::Idle(driver) => driver.has_ended(),
            State::Closed => true,
        }
    }

    /// The connection; its slot, if it was closed meanwhile.
    pub(super) async fn wake(self) -> Result<Connection, Slot> {
        let driver = match self.state {
            State::Ending(task) => task.join().await.ok().flatten(),
            State::Idle(driver) => Some(driver),
            State::Closed => None,
        };
        let Some(mut driver) = driver else {
            return Err(self.slot);
        };
        if driver.has_ended() {
            return Err(self.slot);
        }
        Ok(Connection {
            client: self.client,
            driver,
            place: self.place,
            asked: self.asked,
            is_used: true,
            slot: self.slot,
        })
    }

    /// Closes it.
    pub(super) async fn close(self) {
        if let Ok(connection) = self.wake().await {
            connection.close().await;
        }
    }
}

//! The connection of a prompt: made beside it, and made anew after it was lost.
//!
//! In: how to connect. Out: a connection when a statement needs one, and the names that completion knows. Deliberately absent: trying again by
//! itself; the next statement does.

use tokio::task::JoinHandle;

use super::names::Names;
use crate::{
    client::Connection,
    failure::Failure,
    sql::{SqlArgs, open},
};

/// A connection, or the way to it.
pub(super) struct Link {
    args: SqlArgs,
    names: Names,
    opening: Option<JoinHandle<Result<Connection, Failure>>>,
    connection: Option<Connection>,
}

impl Link {
    /// Begins to connect.
    pub(super) fn begin(args: SqlArgs, names: Names) -> Self {
        let mut link = Self {
            args,
            names,
            opening: None,
            connection: None,
        };
        link.open();
        link
    }

    fn open(&mut self) {
        let (args, names) = (self.args.clone(), self.names.clone());
        self.opening = Some(tokio::spawn(async move {
            let connection = open(&args).await?;
            let another = connection.another();
            tokio::spawn(async move { names.fetch(another).await });
            Ok(connection)
        }));
    }

    /// The connection; waits for it.
    pub(super) async fn connection(&mut self) -> Result<&mut Connection, Failure> {
        if self.connection.is_none() {
            if self.opening.is_none() {
                self.open();
            }
            if let Some(opening) = &mut self.opening {
                let opened = opening.await;
                self.opening = None;
                let opened = opened.map_err(|error| Failure::Failed(format!("connecting ended early: {error}")))?;
                self.connection = Some(opened?);
            }
        }
        self.connection
            .as_mut()
            .ok_or_else(|| Failure::Connect("there is no connection".to_owned()))
    }

    /// After a failure that a new connection may mend, the next statement makes one.
    pub(super) fn doubt(&mut self, failure: &Failure) {
        let is_lost = match failure {
            Failure::Server(error) => error.unauthenticated || error.code == "UNAVAILABLE",
            Failure::Connect(_) => true,
            Failure::Usage(_) | Failure::Failed(_) | Failure::Output(_) | Failure::Interrupted => false,
        };
        if is_lost && self.connection.take().is_some() {
            super::say("the connection is lost; the next statement makes a new one, with a new session");
        }
    }

    /// Takes note of a statement that succeeded; answers whether there may be other names now.
    pub(super) fn learn(&self, sql: &str) -> bool {
        self.names.learn(sql)
    }

    /// Asks for the names once more.
    pub(super) fn fetch_names(&self) {
        if let Some(connection) = &self.connection {
            let (names, another) = (self.names.clone(), connection.another());
            tokio::spawn(async move { names.fetch(another).await });
        }
    }

    /// Ends the session.
    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }
}

//! Ctrl-C: the first stops the running work in good order, the second ends the program at once; at the prompt each stops what then runs.
//!
//! In: the signal. Out: [`Failure::Interrupted`] in place of what the work would have answered. Deliberately absent: what stopping means; the
//! work is dropped, and its owner tells the server.

use std::{process, sync::Arc};

use tokio::sync::watch;

use crate::failure::Failure;

/// The exit code of a program that a SIGINT ended, as shells count it.
const INTERRUPTED: i32 = 130;

/// Hears every Ctrl-C, for work after work.
#[derive(Debug)]
pub(super) struct Interrupts(Arc<watch::Sender<bool>>);

impl Interrupts {
    /// Takes over Ctrl-C, which does not end the program any more.
    pub(super) fn listen() -> Self {
        let sender = Arc::new(watch::channel(false).0);
        let sent = Arc::clone(&sender);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                sent.send_replace(true);
            }
        });
        Self(sender)
    }

    /// Hears Ctrl-C from now on, once.
    pub(super) fn next(&self) -> Interrupt {
        self.0.send_replace(false);
        Interrupt(self.0.subscribe())
    }
}

/// Hears Ctrl-C from its creation on.
#[derive(Debug)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Takes over Ctrl-C. A task hears it, so that it is heard while a write to a full pipe holds up everything else.
    pub(super) fn listen() -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            // Where the signal cannot be heard it keeps its usual effect, which ends the program.
            if tokio::signal::ctrl_c().await.is_ok() {
                sender.send_replace(true);
                if tokio::signal::ctrl_c().await.is_ok() {
                    process::exit(INTERRUPTED);
                }
            }
        });
        Self(receiver)
    }

    /// Hears a sender in place of Ctrl-C.
    #[cfg(test)]
    pub(super) fn on(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Does some work, unless Ctrl-C comes first.
    pub(super) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let interrupted = async {
            if self.0.wait_for(|interrupted| *interrupted).await.is_err() {
                // The listener is gone: no Ctrl-C will come.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = interrupted => Err(Failure::Interrupted),
            result = work => Ok(result),
        }
    }
}

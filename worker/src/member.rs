//! How a worker becomes and stays a member of its cluster.
//!
//! In: what it joins with. Out: a membership that survives a coordinator's restart, resources that are never older than
//! one heartbeat, and an end only when the coordinator says no.

use std::time::Duration;

use minerva_cluster::{Error, Join, ResourcesVersion};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::session::State;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Joins, and joins again whenever it is forgotten. Returns only when it is refused.
pub(crate) async fn stay(state: &State, join: &Join, joined: &watch::Sender<bool>) -> Error {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match take_part(state, join, joined).await {
            // The coordinator does not know this worker any more: it has started anew.
            Ok(()) => {
                pause = FIRST_PAUSE;
                continue;
            }
            Err(error) => error,
        };
        joined.send_replace(false);
        if !error.is_transient() {
            return error;
        }
        tracing::warn!(%error, again_in = ?pause, "cannot join the coordinator");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One membership, from joining until the coordinator has forgotten it.
async fn take_part(state: &State, join: &Join, joined: &watch::Sender<bool>) -> Result<(), Error> {
    // The resources come first: once it has joined, a stage may arrive at any moment.
    state.refresh(&ResourcesVersion::default()).await?;
    let answer = state.client.join(join).await?;
    tracing::info!(coordinator = %state.client.url(), url = %answer.url, node = %state.node_id, "joined");
    joined.send_replace(true);
    let mut beat = interval(Duration::from_millis(answer.heartbeat_ms.max(1)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        beat.tick().await;
        match heartbeat(state).await {
            Ok(known) => {
                if away {
                    tracing::info!(coordinator = %state.client.url(), "the coordinator is back");
                    away = false;
                    joined.send_replace(true);
                }
                if !known {
                    return Ok(());
                }
            }
            Err(error) if error.is_transient() => {
                if !away {
                    tracing::warn!(%error, "the coordinator is away");
                    away = true;
                    joined.send_replace(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn heartbeat(state: &State) -> Result<bool, Error> {
    let heard = state.heartbeat().await?;
    state.refresh(&heard.resources).await?;
    Ok(heard.known)
}

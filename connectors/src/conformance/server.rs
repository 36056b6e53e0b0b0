//! The part of the suite that is about servers: readers that leave, limits of time, and servers that go away.
//!
//! In: how a test makes its server slow, stops it and starts it. Out: what is not as it must be: work that goes on in a server for nobody, a wait without
//! end, an answer that is cut short. A depot that has no server says so, and is held to it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;

use super::{Check, Failure, Subject, expect, reads_all_rows};
use crate::{Depots, Error, ErrorKind, connector};

/// How long something may take that takes no time.
const SOON: Duration = Duration::from_secs(20);

/// What a limit is set to that is to be met.
const SHORT: &str = "300ms";

/// A server under test. Nobody else uses it.
#[async_trait]
pub trait TestServer: Send + Sync {
    /// The depots of the subject once more, with these `timeouts` in the manifest.
    fn depots(&self, timeouts: &str) -> Arc<Depots>;

    /// A dataset of the subject's collection whose first rows come soon and whose last one never.
    fn endless(&self) -> &str;

    /// A dataset of the subject's collection of which no row ever comes.
    fn silent(&self) -> &str;

    /// Whether the server computes or sends something for a depot now.
    async fn is_working(&self) -> bool;

    /// Ends the server at once.
    fn stop(&mut self);

    /// Starts the server again, where it was.
    fn start(&mut self);
}

/// Runs what is about servers and returns what failed. Depots without one are those of connectors that say that they are not remote.
pub async fn check_server(subject: &Subject, server: Option<&mut dyn TestServer>) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut note = |name: &str, result: Check| {
        if let Err(Failure(message)) = result {
            failures.push(Failure(format!("{name}: {message}")));
        }
    };
    let Some(server) = server else {
        note("no server", has_no_server(subject).await);
        return failures;
    };
    note("cancel", cancel(subject, server).await);
    note("timeouts", timeouts(subject, server).await);
    note("lost connections", lost_connections(subject, server).await);
    note("reconnect", reconnect(subject, server).await);
    failures
}

/// Who has no server is never left alone: asking it costs nothing, and the next call finds what is there then.
async fn has_no_server(subject: &Subject) -> Check {
    let source = subject.source().await?;
    let connector = connector(source.depot_type()).ok_or_else(|| Failure("its type is unknown".to_owned()))?;
    expect(
        !connector.is_remote(),
        "a connector of servers is tested without one, so that nobody knows what it does when it is slow or gone",
    )?;
    let missing = source
        .dataset(&subject.collection, "conformance missing", &subject.session())
        .await?;
    expect(missing.is_none(), "there is a dataset that nobody made")
}

/// Leaving ends the server's work, whether rows came or not, and so does having enough.
async fn cancel(subject: &Subject, server: &dyn TestServer) -> Check {
    for dataset in [server.endless(), server.silent()] {
        let mut rows = subject.stream(dataset, None).await?;
        if dataset == server.endless() {
            some_row(dataset, &mut rows).await?;
        } else {
            let nothing = tokio::time::timeout(Duration::from_millis(200), rows.next()).await;
            expect(nothing.is_err(), &format!("`{dataset}` is not silent"))?;
        }
        soon("the server works for a reader", || server.is_working()).await?;
        drop(rows);
        idle(server, &format!("the reader of `{dataset}` left")).await?;
    }
    let mut few = subject.stream(server.endless(), Some(5)).await?;
    let mut count = 0;
    while let Some(batch) = in_time(few.next()).await? {
        count += batch?.num_rows();
    }
    expect(count == 5, &format!("LIMIT 5 gives {count} rows"))?;
    idle(server, "a reader had enough").await
}

/// The depot's limits hold, name what they are about, and end the server's work.
async fn timeouts(subject: &Subject, server: &dyn TestServer) -> Check {
    for (timeout, dataset) in [
        ("idle", server.silent()),
        ("query", server.endless()),
        ("query", server.silent()),
    ] {
        let limited = subject.with(server.depots(&format!("{timeout}: {SHORT}")));
        let mut rows = limited.stream(dataset, None).await?;
        let error = to_the_end(&mut rows).await?;
        let said = error.to_string();
        let named =
            said.contains(&format!("`timeouts.{timeout}`")) && said.contains(dataset) && said.contains(&subject.depot);
        expect(
            error.kind == ErrorKind::Busy && named,
            &format!("`{dataset}` with `{timeout}: {SHORT}`: {said}"),
        )?;
        drop(rows);
        idle(server, &format!("`timeouts.{timeout}` ended a statement")).await?;
    }
    Ok(())
}

/// A server that ends in the middle of rows is an error, and never the end of the rows.
async fn lost_connections(subject: &Subject, server: &mut dyn TestServer) -> Check {
    let dataset = server.endless().to_owned();
    let mut rows = subject.stream(&dataset, None).await?;
    some_row(&dataset, &mut rows).await?;
    server.stop();
    let error = to_the_end(&mut rows).await;
    drop(rows);
    server.start();
    let error = error?;
    let named = error.to_string().contains(&subject.depot) && error.to_string().contains(&dataset);
    expect(
        named && matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Busy),
        &format!("a server that ended in the middle: {error}"),
    )
}

/// What was opened before a server went away works when it is back, and is an error in between.
async fn reconnect(subject: &Subject, server: &mut dyn TestServer) -> Check {
    let Some(sample) = subject.samples.iter().find(|sample| sample.rows.num_rows() > 0) else {
        return Err(Failure("no sample has rows".to_owned()));
    };
    // It may be left alone for a moment since it was lost.
    soon("it is read after the server was gone", || async {
        reads_all_rows(subject, sample).await.is_ok()
    })
    .await?;
    server.stop();
    server.start();
    reads_all_rows(subject, sample)
        .await
        .map_err(|Failure(message)| Failure(format!("after a restart: {message}")))?;
    server.stop();
    let error = in_time(subject.stream(&sample.name, None)).await?;
    let error = match error {
        Err(Failure(message)) => message,
        Ok(mut rows) => to_the_end(&mut rows).await?.to_string(),
    };
    server.start();
    expect(
        error.contains(&subject.depot),
        &format!("a server that is gone: {error}"),
    )?;
    soon("it is read again when the server is back", || async {
        reads_all_rows(subject, sample).await.is_ok()
    })
    .await
}

async fn some_row(dataset: &str, rows: &mut SendableRecordBatchStream) -> Check {
    match in_time(rows.next()).await? {
        Some(batch) => expect(batch?.num_rows() > 0, "an empty batch"),
        None => Err(Failure(format!("`{dataset}` ends"))),
    }
}

/// The error that rows end with.
async fn to_the_end(rows: &mut SendableRecordBatchStream) -> Result<Error, Failure> {
    let end = async {
        loop {
            match rows.next().await {
                Some(Ok(_)) => {}
                Some(Err(failure)) => {
                    let error = Error::find(&failure).cloned();
                    return error.ok_or_else(|| Failure(format!("an error of no depot: {failure}")));
                }
                None => return Err(Failure("the rows end as if these were all".to_owned())),
            }
        }
    };
    in_time(end).await?
}

async fn idle(server: &dyn TestServer, after: &str) -> Check {
    soon(&format!("the server has stopped after {after}"), || async {
        !server.is_working().await
    })
    .await
}

async fn soon<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) -> Check {
    let begun = Instant::now();
    while !holds().await {
        expect(begun.elapsed() < SOON, &format!("it never happens that {what}"))?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let limit = tokio::time::timeout(Duration::from_secs(60), work).await;
    limit.map_err(|_| Failure("it takes longer than a minute".to_owned()))
}

impl Subject {
    /// The same subject over other depots.
    fn with(&self, depots: Arc<Depots>) -> Subject {
        Subject {
            depots,
            depot: self.depot.clone(),
            collection: self.collection.clone(),
            samples: Vec::new(),
            writes: self.writes,
        }
    }

    async fn stream(&self, dataset: &str, limit: Option<usize>) -> Result<SendableRecordBatchStream, Failure> {
        let plan = self.plan(self.table(dataset).await?, None, &[], limit).await?;
        Ok(execute_stream(plan, self.session().task_ctx())?)
    }
}

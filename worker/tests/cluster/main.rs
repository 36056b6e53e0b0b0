//! The wire as a whole: a cluster port, workers inside the process and over TCP, and queries over a depot of files.
//!
//! The coordinator's part is played by [`Site`]: it plans with the shared session set-up and grants tables itself. Nothing
//! here sleeps for a fixed time; each wait is for something that happens.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests play the coordinator and make the session and its tables themselves"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use minerva_cluster::{Channels, CoordinatorClient, Error, Join, NodeState, Token, VERSION, WorkerLost};

use crate::site::{ProcessWorker, Site, TcpWorker, act_as_worker};

const JOIN: &str = "SELECT o.region, count(*) AS orders, sum(o.amount) AS amount, max(c.name) AS last \
                    FROM orders o JOIN customers c ON o.customer = c.id \
                    WHERE c.id % 3 <> 0 GROUP BY o.region ORDER BY o.region";

/// Longer than any of these queries takes, shorter than a hang.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_the_same_on_one_process_on_two_and_on_a_mixture() {
    let alone = Site::start().await;
    let expected = alone.rows(JOIN).await.unwrap();
    assert!(
        !alone.explain(JOIN).await.contains("Network"),
        "without workers nothing is cut"
    );
    assert!(expected.contains("| east"), "{expected}");

    let inside = Site::start().await;
    inside.add_in_process(2);
    assert!(inside.explain(JOIN).await.contains("NetworkShuffleExec"));
    assert_eq!(inside.rows(JOIN).await.unwrap(), expected);

    let outside = Site::start().await;
    let _first = outside.add_tcp().await;
    let _second = outside.add_tcp().await;
    assert_eq!(outside.rows(JOIN).await.unwrap(), expected);

    outside.add_in_process(1);
    assert_eq!(outside.members.active().len(), 3);
    for _ in 0..3 {
        assert_eq!(
            outside.rows(JOIN).await.unwrap(),
            expected,
            "workers outside fetch from the one inside"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_analyze_gathers_the_metrics_of_every_worker() {
    let site = Site::start().await;
    let _first = site.add_tcp().await;
    let _second = site.add_tcp().await;
    let text = site.analyzed(JOIN).await;
    assert!(text.contains("output_rows={0:"), "metrics of task 0 by name\n{text}");
    assert!(text.contains("1:"), "and of task 1\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_was_not_granted_is_refused_by_the_worker() {
    let site = Site::start().await;
    site.add_in_process(2);
    let error = site.rows_granted(JOIN, &["orders"]).await.unwrap_err().to_string();
    assert!(
        error.contains("refused before it ran") && error.contains("customers"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_token_is_refused_at_the_cluster_port_and_at_the_worker() {
    let site = Site::start().await;
    let worker = site.add_tcp().await;
    let stranger = Channels::new(Token::generate().unwrap(), None);

    let error = CoordinatorClient::new(site.url.clone(), stranger.clone())
        .heartbeat("me", BTreeSet::new(), BTreeMap::new())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Refused(message) if message.contains("join token")),
        "{error}"
    );

    let error = stranger.probe(&worker.url).await.unwrap_err();
    assert!(error.to_string().contains("refused the join token"), "{error}");
    assert_eq!(WorkerLost::find(&error), None);
    assert_eq!(site.channels.probe(&worker.url).await.unwrap(), VERSION);

    let refused = TcpWorker::run(site.worker_config(Token::generate().unwrap()))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("refused the join token"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_refused_in_plain_words() {
    let site = Site::start().await;
    let client = CoordinatorClient::new(site.url.clone(), site.channels.clone());
    let join = Join {
        node_id: "old".to_owned(),
        url: "http://127.0.0.1:1".parse().unwrap(),
        version: "0.0.1".to_owned(),
        cores: 1,
        memory_bytes: 0,
    };
    let error = client.join(&join).await.unwrap_err();
    assert!(error.to_string().contains("is Minerva 0.0.1"), "{error}");
    assert!(!error.is_transient());

    let error = client
        .join(&Join {
            version: VERSION.to_owned(),
            ..join
        })
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot reach worker `old`"), "{error}");
    assert!(site.members.active().is_empty());
}

const PROCESS: &str = "a_worker_in_a_process_of_its_own";

/// The worker that is lost when something happens to it in the middle of a query.
async fn lost_during_a_query(site: &Site, happens: impl FnOnce()) -> WorkerLost {
    let endless = "SELECT a.amount * b.amount * c.amount AS product FROM orders a, orders b, orders c \
                   WHERE a.amount + b.amount <> c.amount";
    let mut running = site.stream(endless, &["orders"]).await.unwrap();
    // With the first rows here, the stages are on their way to both workers.
    running.next().await.unwrap().unwrap();
    happens();
    let first_error = async {
        loop {
            if let Err(error) = running.next().await.expect("the query is endless") {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, first_error).await.expect("no hang");
    WorkerLost::find(&error).unwrap_or_else(|| panic!("not a lost worker: {error}"))
}

/// Not a test: the process that the next two kill and freeze.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_a_process_of_its_own() {
    act_as_worker().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_an_error_that_names_it_and_not_a_hang() {
    let site = Site::start().await;
    let _kept = site.add_tcp().await;
    let mut killed = ProcessWorker::start(&site, PROCESS).await;
    let lost = lost_during_a_query(&site, || killed.kill()).await;
    assert_eq!(lost.url, killed.url);

    let error = tokio::time::timeout(PATIENCE, site.rows(JOIN))
        .await
        .expect("no hang")
        .unwrap_err();
    let lost = WorkerLost::find(&error).unwrap_or_else(|| panic!("not a lost worker: {error}"));
    site.members.suspect(&lost.url);
    site.rows(JOIN).await.expect("one worker is left");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_is_an_error_too() {
    let site = Site::start().await;
    let _kept = site.add_tcp().await;
    let frozen = ProcessWorker::start(&site, PROCESS).await;
    let lost = lost_during_a_query(&site, || frozen.freeze()).await;
    assert_eq!(lost.url, frozen.url);
    assert_eq!(site.members.active().len(), 1, "by now it has been silent for long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_certificates_takes_no_plain_text() {
    let site = Site::start_with_tls().await;
    let first = site.add_tcp().await;
    let _second = site.add_tcp().await;
    assert_eq!(first.url.scheme(), "https");
    assert!(site.rows(JOIN).await.unwrap().contains("| east"));

    let mut plain = site.worker_config(Token::generate().unwrap());
    plain.tls = None;
    let error = TcpWorker::run(plain).await.unwrap_err().to_string();
    assert!(error.contains("give `--tls-ca`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_finishes_and_gets_nothing_new() {
    let site = Site::start().await;
    let _kept = site.add_tcp().await;
    let leaving = site.add_tcp().await;
    let node_id = leaving.node_id.clone();
    let state = || {
        site.members
            .nodes()
            .iter()
            .find(|node| node.node_id == node_id)
            .map(|node| node.state)
    };
    let mut changes = site.members.changes();
    let mut states = vec![state()];
    let watched = async {
        while states.last() != Some(&None) {
            changes.changed().await.unwrap();
            states.push(state());
        }
    };
    let (stopped, ()) = tokio::join!(leaving.stop(), watched);
    stopped.unwrap();
    assert_eq!(states, [Some(NodeState::Active), Some(NodeState::Draining), None]);
    assert_eq!(site.members.active().len(), 1);
    site.rows(JOIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_change_are_there_for_the_next_query() {
    let site = Site::start_empty().await;
    let _first = site.add_tcp().await;
    let _second = site.add_tcp().await;
    site.put_depot();
    assert!(
        site.rows(JOIN).await.unwrap().contains("| east"),
        "without waiting for a heartbeat"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_its_coordinator_and_comes_back_to_a_new_one() {
    let site = Site::start().await;
    let worker = site.add_tcp().await;
    let site = site.restart().await;
    tokio::time::timeout(PATIENCE, site.members.wait_for_active(1))
        .await
        .expect("the worker joins again");
    assert_eq!(site.members.active(), std::slice::from_ref(&worker.url));
}

//! What is known of a server, and how long it is waited for.

use std::time::Duration;

use minerva_connectors::{DepotState, ErrorKind};

use crate::server::{PASSWORD, Server, depots_with, row_count, shared};

/// A server that is gone is not asked by everybody again and again, and is found by itself when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_left_alone_and_found_again() {
    let mut server = Server::start();
    let place = server
        .database("gone", "CREATE TABLE t AS SELECT generate_series(1, 10) AS id")
        .await;
    assert_eq!(row_count(&place.rows("t").await.unwrap()), 10);
    assert_eq!(place.depots.health("db").unwrap().state, DepotState::Ready);
    server.stop();
    let said = loop {
        let error = place.find("public", "t").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        if error.to_string().contains("since") {
            break error.to_string();
        }
    };
    assert!(
        said.contains("cannot be reached") && said.contains("tried again"),
        "{said}"
    );
    let health = place.depots.health("db").unwrap();
    assert_eq!(health.state, DepotState::Unreachable);
    assert!(health.failures >= 3 && health.failure.is_some());
    server.restart();
    let begun = std::time::Instant::now();
    while place.depots.health("db").unwrap().state != DepotState::Ready {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody looked after it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(row_count(&place.rows("t").await.unwrap()), 10);
}

/// A depot that takes the connection and says nothing is given up, and so is one that stops in the middle of its rows.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_waited_for_without_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let waiting = |settings: &str, timeouts: &str| {
        depots_with(settings, "reader", PASSWORD, &format!("  timeouts: {{{timeouts}}}\n"))
    };
    let silent = waiting(
        &format!("host: 127.0.0.1, port: {port}, database: d, params: {{sslmode: disable}}"),
        "connect: 300ms",
    );
    let error = silent.open("db").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.to_string().contains("within 0.3 seconds"), "{error}");

    let server = shared();
    let mut place = server
        .database("sleepy", "CREATE VIEW slow AS SELECT pg_sleep(60)::text AS x")
        .await;
    for (timeouts, said) in [("idle: 3s", "timeouts.idle"), ("query: 1s", "timeouts.query")] {
        let settings = format!(
            "host: 127.0.0.1, port: {}, database: sleepy, params: {{sslmode: disable}}",
            server.port
        );
        place.depots = waiting(&settings, timeouts);
        let error = place.failure("slow").await;
        assert_eq!(error.kind, ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(place.depots.health("db").unwrap().state, DepotState::Degraded);
        // The statement does not go on in the server.
        let running = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'sleepy' AND usename = 'reader' AND state = 'active'";
        place.until(running).await;
    }
}

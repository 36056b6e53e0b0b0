//! Who is spoken to, and whether somebody listens in.

use minerva_connectors::ErrorKind;

use crate::server::{PASSWORD, Server, row_count, shared};

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_asks_for_what_it_says() {
    let place = shared().database("tls", "CREATE TABLE t AS SELECT 1 AS id").await;
    let root = |name: &str| format!("sslrootcert: {}", Server::certificate(name));
    let (ca, other) = (root("ca.pem"), root("other-ca.pem"));
    // `encrypted` may not connect without TLS, and the certificate is for `localhost`.
    let good = [
        ("127.0.0.1", "sslmode: require".to_owned()),
        ("127.0.0.1", format!("sslmode: verify-ca, {ca}")),
        ("localhost", format!("sslmode: verify-full, {ca}")),
        ("localhost", ca.clone()),
    ];
    for (host, params) in good {
        let depots = shared().depots("tls", host, &params, "encrypted", PASSWORD);
        let source = depots
            .open("db")
            .await
            .unwrap_or_else(|error| panic!("{params}: {error}"));
        assert_eq!(source.datasets("public").await.unwrap(), ["t"], "{params}");
    }
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE usename = 'encrypted' AND datname = 'tls'";
    let depots = shared().depots("tls", "localhost", &ca, "encrypted", PASSWORD);
    let _open = depots.open("db").await.unwrap();
    assert!(place.ask::<bool>(encrypted).await);

    let bad = [
        (
            "127.0.0.1",
            "sslmode: disable".to_owned(),
            ErrorKind::Refused,
            "pg_hba.conf",
        ),
        (
            "127.0.0.1",
            format!("sslmode: verify-full, {ca}"),
            ErrorKind::Refused,
            "certificate",
        ),
        (
            "localhost",
            format!("sslmode: verify-full, {other}"),
            ErrorKind::Refused,
            "UnknownIssuer",
        ),
        (
            "localhost",
            format!("sslmode: verify-ca, {other}"),
            ErrorKind::Refused,
            "UnknownIssuer",
        ),
        // A root that is named is used.
        (
            "localhost",
            format!("sslmode: require, {other}"),
            ErrorKind::Refused,
            "UnknownIssuer",
        ),
        (
            "localhost",
            "sslrootcert: gone.pem".to_owned(),
            ErrorKind::Settings,
            "gone.pem",
        ),
        ("localhost", root("server.key"), ErrorKind::Settings, "no certificate"),
    ];
    for (host, params, kind, word) in bad {
        let depots = shared().depots("tls", host, &params, "encrypted", PASSWORD);
        let error = depots.open("db").await.unwrap_err();
        assert_eq!(error.kind, kind, "{params}: {error}");
        assert!(error.to_string().contains(word), "{params}: {error}");
        assert!(!error.to_string().contains(PASSWORD), "{error}");
    }
    assert_eq!(row_count(&place.rows("t").await.unwrap()), 1);
}

/// A server that does not speak TLS is not spoken to without it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_falls_back_to_no_tls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        socket.read_exact(&mut request).await.unwrap();
        socket.write_all(b"N").await.unwrap();
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        rest
    });
    let settings = format!("host: 127.0.0.1, port: {port}, database: d, params: {{sslmode: require}}");
    let error = crate::server::depots(&settings, "u", PASSWORD)
        .open("db")
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Settings, "{error}");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    assert!(server.await.unwrap().is_empty());
}

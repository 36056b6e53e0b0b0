//! A connection to a coordinator over Flight SQL.
//!
//! In: which server and which user. Out: a [`Connection`] that is authenticated and keeps its session, runs statements and calls Minerva's own
//! actions. Deliberately absent: what is done with the rows, and any way to connect without saying who one is.

mod door;
mod target;

use std::{fs, io::ErrorKind, path::Path, time::Duration};

use arrow::array::RecordBatch;
use arrow_flight::{
    Action, CancelFlightInfoRequest, FlightClient, FlightEndpoint, FlightInfo, HandshakeRequest, Ticket,
    decode::FlightRecordBatchStream,
    flight_service_client::FlightServiceClient,
    sql::{CommandGetTables, client::FlightSqlServiceClient},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{TryStreamExt, stream};
use serde_json::Value;
use tonic::{
    Code, Request, Status,
    metadata::AsciiMetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use self::{door::Door, target::Target};
use crate::{args::ServerArgs, failure::Failure};

/// The user that a first start creates when no users are declared.
const FIRST_USER: &str = "admin";
/// Where a first start leaves that user's key, in the data folder.
const FIRST_KEY_FILE: &str = "admin-key";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a server may take to accept the cancelling of a query that nobody waits for any more.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// Rows may be long; arrow-flight's servers send pieces of about 2 MiB, but never half a row.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// Who connects.
struct Identity {
    user: String,
    apikey: String,
}

/// An authenticated session with a coordinator.
#[derive(Debug)]
pub(crate) struct Connection {
    client: FlightSqlServiceClient<Door>,
    door: Door,
}

impl Connection {
    /// Connects and authenticates as `user`, or as the first user of a local coordinator.
    pub(crate) async fn open(server: &ServerArgs, user: Option<&str>) -> Result<Self, Failure> {
        let target = Target::parse(server.server(), server.tls_ca.is_some()).map_err(Failure::Usage)?;
        let identity = identity(server, user, &target)?;
        if !target.tls && !target.is_loopback() && !server.insecure {
            return Err(Failure::Usage(format!(
                "the API key would go to `{}` unencrypted; use an `https://` URL with --tls-ca, or --insecure to accept that",
                target.authority()
            )));
        }
        let door = Door::new(connect(server, &target).await?);
        handshake(&door, &identity).await?;
        Ok(Self::at(door))
    }

    fn at(door: Door) -> Self {
        let service = FlightServiceClient::new(door.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self {
            client: FlightSqlServiceClient::new_from_inner(service),
            door,
        }
    }

    /// The same session, for use beside this one.
    pub(crate) fn another(&self) -> Self {
        Self::at(self.door.clone())
    }

    /// Sends queries of this session to a cluster.
    pub(crate) fn use_cluster(&self, name: &str) -> Result<(), Failure> {
        let value = AsciiMetadataValue::try_from(name)
            .map_err(|_| Failure::Usage(format!("`{name}` cannot be a cluster's name")))?;
        self.door.set_header("cluster-name", value);
        Ok(())
    }

    /// Sets an option of the session: `catalog` or `schema`.
    pub(crate) async fn set_option(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let answer = self.act("SetSessionOptions", session_option(name, value)).await?;
        // SetSessionOptionsResult holds nothing but the options that were refused.
        if answer.iter().all(Vec::is_empty) {
            Ok(())
        } else {
            Err(Failure::Failed(format!(
                "the {name} `{value}` does not exist, or is not for this user"
            )))
        }
    }

    /// Plans a statement; it runs when its endpoints are read.
    pub(crate) async fn start(&mut self, sql: &str) -> Result<FlightInfo, Failure> {
        Ok(self.client.execute(sql.to_owned(), None).await?)
    }

    /// Reads what one endpoint of a statement holds. Minerva's endpoints are all at the door that planned them.
    pub(crate) async fn read(&mut self, endpoint: &FlightEndpoint) -> Result<FlightRecordBatchStream, Failure> {
        let ticket = endpoint.ticket.clone().unwrap_or_else(|| Ticket::new(Vec::new()));
        Ok(self.client.do_get(ticket).await?)
    }

    /// Asks the server to stop a query. Its stream is dropped in any case, so that a refusal changes nothing.
    pub(crate) async fn cancel(&self, info: FlightInfo) {
        let mut client = FlightClient::new(self.door.clone());
        let request = CancelFlightInfoRequest::new(info);
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, client.cancel_flight_info(request)).await;
    }

    /// The tables that the user may see, as GetTables answers them.
    pub(crate) async fn tables(&mut self, with_columns: bool) -> Result<Vec<RecordBatch>, Failure> {
        let request = CommandGetTables {
            include_schema: with_columns,
            ..CommandGetTables::default()
        };
        let info = self.client.get_tables(request).await?;
        let mut batches = Vec::new();
        for endpoint in &info.endpoint {
            batches.extend(self.read(endpoint).await?.try_collect::<Vec<_>>().await?);
        }
        Ok(batches)
    }

    /// Calls one of Minerva's own actions, JSON in and JSON out.
    pub(crate) async fn call(&mut self, action: &str, arguments: &Value) -> Result<Value, Failure> {
        let answer = self.act(action, arguments.to_string().into_bytes()).await?.concat();
        serde_json::from_slice(&answer).map_err(|error| {
            Failure::Failed(format!(
                "the server's answer to `{action}` is no JSON ({error}); is it of another version?"
            ))
        })
    }

    /// Ends the session, if the server keeps one; it would also end by itself after a while.
    pub(crate) async fn close(mut self) {
        if self.door.has_session() {
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, self.act("CloseSession", Vec::new())).await;
        }
    }

    async fn act(&mut self, name: &str, body: Vec<u8>) -> Result<Vec<Vec<u8>>, Failure> {
        let results = self.client.do_action(Action::new(name, body)).await?;
        Ok(results.map_ok(|result| result.body.to_vec()).try_collect().await?)
    }
}

/// Runs one call of Minerva's own actions in a session of its own.
pub(crate) fn call_once(
    server: &ServerArgs,
    user: Option<&str>,
    action: &str,
    arguments: &Value,
) -> Result<Value, Failure> {
    block_on(async {
        let mut connection = Connection::open(server, user).await?;
        let answer = connection.call(action, arguments).await;
        connection.close().await;
        answer
    })
}

/// Runs a client's work to its end; two threads, so that Ctrl-C is heard while a write waits.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the program's threads: {error}")))?
        .block_on(work)
}

/// Who connects: as typed or in the environment, else the first user of a coordinator on this machine.
fn identity(server: &ServerArgs, user: Option<&str>, target: &Target) -> Result<Identity, Failure> {
    if let (Some(user), Some(apikey)) = (user, &server.apikey) {
        return Ok(Identity {
            user: user.to_owned(),
            apikey: apikey.clone(),
        });
    }
    if let (None, Some(_)) = (user, &server.apikey) {
        return Err(Failure::Usage(
            "an API key was given, but not whose; set the user too, with its flag or MINERVA_USER".to_owned(),
        ));
    }
    let wanted = user.unwrap_or(FIRST_USER);
    let path = server.data.join(FIRST_KEY_FILE);
    let missing = |reason: &str| {
        Failure::Connect(format!(
            "no API key for `{wanted}`: set MINERVA_APIKEY or --apikey ({reason})"
        ))
    };
    if wanted != FIRST_USER {
        return Err(missing(&format!(
            "only `{FIRST_USER}` may have one in `{}`",
            path.display()
        )));
    }
    if !target.is_loopback() {
        return Err(missing(&format!(
            "the one in `{}` is sent to coordinators on this machine only",
            path.display()
        )));
    }
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(Identity {
            user: wanted.to_owned(),
            apikey: text.trim().to_owned(),
        }),
        Ok(_) => Err(missing(&format!("`{}` is empty", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(&format!(
            "there is none in `{}`; --data names another folder",
            path.display()
        ))),
        Err(error) => Err(missing(&format!("`{}` cannot be read: {error}", path.display()))),
    }
}

async fn connect(server: &ServerArgs, target: &Target) -> Result<Channel, Failure> {
    let authority = target.authority();
    let mut endpoint = Endpoint::from_shared(target.url())
        .map_err(|error| Failure::Usage(format!("`{}` is no server: {error}", server.server())))?
        .user_agent(concat!("minerva/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| Failure::Failed(error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    if target.tls {
        let authorities = authorities(server.tls_ca.as_deref())?;
        let tls = ClientTlsConfig::new()
            .domain_name(target.host())
            .ca_certificate(Certificate::from_pem(authorities));
        endpoint = endpoint
            .tls_config(tls)
            .map_err(|error| Failure::Usage(format!("TLS to `{authority}`: {}", causes(&error))))?;
    }
    endpoint.connect().await.map_err(|error| {
        Failure::Connect(format!(
            "cannot connect to `{authority}`: {}; is a coordinator serving there?",
            causes(&error)
        ))
    })
}

fn authorities(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let Some(file) = file else {
        return Err(Failure::Usage(
            "`https://` needs --tls-ca, a file with the authorities to trust".to_owned(),
        ));
    };
    fs::read(file).map_err(|error| Failure::Usage(format!("--tls-ca: `{}` cannot be read: {error}", file.display())))
}

/// Trades user and key for the bearer token of the session.
async fn handshake(door: &Door, identity: &Identity) -> Result<(), Failure> {
    let credentials = BASE64_STANDARD.encode(format!("{}:{}", identity.user, identity.apikey));
    let mut basic = AsciiMetadataValue::try_from(format!("Basic {credentials}"))
        .map_err(|_| Failure::Usage("the user or the API key is malformed".to_owned()))?;
    basic.set_sensitive(true);
    let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
    request.metadata_mut().insert("authorization", basic);
    let mut client = FlightServiceClient::new(door.clone());
    let response = client
        .handshake(request)
        .await
        .map_err(|status| refused(status, identity))?;
    let mut bearer = response
        .metadata()
        .get("authorization")
        .filter(|value| value.as_bytes().starts_with(b"Bearer "))
        .cloned()
        .ok_or_else(|| {
            Failure::Connect("the server accepted the API key but answered without a token; is it Minerva?".to_owned())
        })?;
    let _payloads: Vec<_> = response
        .into_inner()
        .try_collect()
        .await
        .map_err(|status| refused(status, identity))?;
    bearer.set_sensitive(true);
    door.set_header("authorization", bearer);
    Ok(())
}

fn refused(status: Status, identity: &Identity) -> Failure {
    match status.code() {
        Code::Unauthenticated => Failure::from(status),
        _ => {
            let why = Failure::from(status).to_string();
            Failure::Connect(format!(
                "cannot authenticate as `{}`: {}",
                identity.user,
                why.trim_start_matches("error: ")
            ))
        }
    }
}

/// An error with what caused it; transport errors say only "transport error" themselves.
fn causes(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// Flight's `SetSessionOptionsRequest` with one text option, which the generated messages of arrow-flight 59 lack:
/// `{ map<string, SessionOptionValue> session_options = 1 }`, where `SessionOptionValue` is `{ string string_value = 1 }`.
fn session_option(name: &str, value: &str) -> Vec<u8> {
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(content);
        bytes
    }
    let option = field(1, value.as_bytes());
    field(1, &[field(1, name.as_bytes()), field(2, &option)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_option_is_encoded_as_protobuf() {
        assert_eq!(
            session_option("catalog", "c"),
            b"\x0a\x0e\x0a\x07catalog\x12\x03\x0a\x01c"
        );
        let long = "x".repeat(300);
        let bytes = session_option("schema", &long);
        assert_eq!(&bytes[..3], b"\x0a\xba\x02", "314 bytes follow");
        assert_eq!(bytes.len(), 3 + 314);
    }

    fn server(folder: &Path, apikey: Option<&str>) -> ServerArgs {
        ServerArgs {
            server: Some("127.0.0.1:7433".to_owned()),
            apikey: apikey.map(str::to_owned),
            tls_ca: None,
            insecure: false,
            data: folder.to_owned(),
        }
    }

    #[test]
    fn the_first_key_is_found_and_stays_on_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("admin-key"), "k3y\n").unwrap();
        let here = Target::parse("localhost", false).unwrap();
        let there = Target::parse("https://minerva.example", false).unwrap();
        let server = |apikey| server(folder.path(), apikey);
        let found =
            |server: &ServerArgs, user, target| identity(server, user, target).map(|found| (found.user, found.apikey));
        let admin = ("admin".to_owned(), "k3y".to_owned());
        assert_eq!(found(&server(None), None, &here).unwrap(), admin);
        assert_eq!(found(&server(None), Some("admin"), &here).unwrap(), admin);
        assert_eq!(
            found(&server(Some("mine")), Some("jane"), &there).unwrap(),
            ("jane".to_owned(), "mine".to_owned())
        );
        for (server, user, target, words) in [
            (server(None), None, &there, "on this machine only"),
            (server(None), Some("jane"), &here, "no API key for `jane`"),
            (server(Some("mine")), None, &here, "not whose"),
        ] {
            let message = found(&server, user, target).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
            assert!(!message.contains("k3y"), "{message}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_a_failure_to_connect() {
        let mut server = server(Path::new("."), Some("key"));
        server.server = Some("127.0.0.1:1".to_owned());
        let failure = call_once(&server, Some("jane"), "any", &Value::Null).unwrap_err();
        assert!(matches!(failure, Failure::Connect(_)), "{failure}");
        assert!(
            failure
                .to_string()
                .starts_with("error: cannot connect to `127.0.0.1:1`: "),
            "{failure}"
        );
    }

    #[test]
    fn a_key_does_not_leave_the_machine_in_the_clear() {
        let mut server = server(Path::new("."), Some("key"));
        server.server = Some("192.0.2.1:7433".to_owned());
        let failure = call_once(&server, Some("jane"), "any", &Value::Null).unwrap_err();
        assert!(matches!(failure, Failure::Usage(_)), "{failure}");
        assert!(failure.to_string().contains("unencrypted"), "{failure}");
    }
}

//! The command against a server that knows its lines: what goes over the wire, and what is left of it on standard output.

use std::sync::{Arc, Mutex};

use arrow::{
    array::Int64Array,
    datatypes::{DataType, Field},
};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    flight_service_server::{FlightService, FlightServiceServer},
};
use clap::Parser;
use futures::{TryStreamExt, stream, stream::BoxStream};
use tokio::sync::watch;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{MetadataMap, MetadataValue},
    transport::{Server, server::TcpIncoming},
};

use super::*;
use crate::{Cli, Command, failure::ServerError};

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = BoxStream<'static, Result<T, Status>>;

/// Answers `SELECT n` with a row; fails at `broken`; never ends with `slow`; has no result for `USE`.
#[derive(Clone, Default)]
struct Fake {
    /// What clients asked, in turn.
    log: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Serves at a free port; answers its address.
    async fn serve(&self) -> String {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let server = Server::builder().add_service(FlightServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    }

    fn note(&self, metadata: &MetadataMap, what: &str) -> Result<(), Status> {
        let text = |name| metadata.get(name).map_or("-", |value| value.to_str().unwrap());
        if text("authorization") != "Bearer t0k3n" {
            return Err(Status::unauthenticated("no token"));
        }
        self.log
            .lock()
            .unwrap()
            .push(format!("{what} [{}] [{}]", text("cookie"), text("cluster-name")));
        Ok(())
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn rows() -> RecordBatch {
    let numbers = Arc::new(Int64Array::from(vec![Some(7), None])) as _;
    RecordBatch::try_from_iter_with_nullable([("n", numbers, true)]).unwrap()
}

fn nothing<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this play"))
}

#[tonic::async_trait]
impl FlightService for Fake {
    type HandshakeStream = Items<HandshakeResponse>;
    type ListFlightsStream = Items<FlightInfo>;
    type DoGetStream = Items<FlightData>;
    type DoPutStream = Items<PutResult>;
    type DoActionStream = Items<arrow_flight::Result>;
    type ListActionsStream = Items<ActionType>;
    type DoExchangeStream = Items<FlightData>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        // jane:key
        if request
            .metadata()
            .get("authorization")
            .is_none_or(|value| value != "Basic amFuZTprZXk=")
        {
            return Err(Status::unauthenticated("unknown user or wrong key"));
        }
        let answers: Self::HandshakeStream = Box::pin(stream::iter([Ok(HandshakeResponse::default())]));
        let mut response = Response::new(answers);
        response
            .metadata_mut()
            .insert("authorization", MetadataValue::from_static("Bearer t0k3n"));
        Ok(response)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        // The statement is the last field of the command, and texts are stored as they are.
        let command = String::from_utf8_lossy(&request.get_ref().cmd).into_owned();
        let sql = ["SELECT", "USE"]
            .iter()
            .filter_map(|word| command.find(word))
            .min()
            .map(|at| command[at..].to_owned())
            .unwrap();
        self.note(request.metadata(), &format!("plan {sql}"))?;
        if sql.contains("broken") {
            let mut status = Status::not_found("no column `broken` (line 2, column 3)");
            status
                .metadata_mut()
                .insert("minerva-error-code", MetadataValue::from_static("COLUMN_NOT_FOUND"));
            status
                .metadata_mut()
                .insert("minerva-error-position", MetadataValue::from_static("2:3"));
            return Err(status);
        }
        let schema = if sql.starts_with("USE") {
            Schema::empty()
        } else {
            rows().schema().as_ref().clone()
        };
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(sql));
        Ok(Response::new(
            FlightInfo::new()
                .try_with_schema(&schema)
                .unwrap()
                .with_endpoint(endpoint),
        ))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let sql = String::from_utf8(request.get_ref().ticket.to_vec()).unwrap();
        self.note(request.metadata(), &format!("read {sql}"))?;
        let (schema, batches) = if sql.starts_with("USE") {
            (SchemaRef::new(Schema::empty()), Vec::new())
        } else {
            (rows().schema(), vec![Ok(rows())])
        };
        let batches = stream::iter(batches);
        let batches = if sql.contains("slow") {
            batches.chain(stream::pending()).boxed()
        } else {
            batches.boxed()
        };
        let messages = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
        Ok(Response::new(messages.map_err(Status::from).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        let action = request.get_ref();
        let option = ["catalog", "schema"]
            .iter()
            .find(|option| String::from_utf8_lossy(&action.body).contains(**option));
        let option = option
            .filter(|_| action.r#type == "SetSessionOptions")
            .map_or(String::new(), |option| format!(" {option}"));
        self.note(request.metadata(), &format!("{}{option}", action.r#type))?;
        let results: Self::DoActionStream = Box::pin(stream::iter([Ok(arrow_flight::Result::new(Vec::new()))]));
        let mut response = Response::new(results);
        response
            .metadata_mut()
            .insert("set-cookie", MetadataValue::from_static("session=5; HttpOnly"));
        Ok(response)
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        nothing()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        nothing()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        nothing()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        nothing()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        nothing()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        nothing()
    }
}

/// What was written, and something to do when the first bytes are.
#[derive(Clone)]
struct Paper {
    text: Arc<Mutex<Vec<u8>>>,
    on_write: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
}

impl Paper {
    fn new(on_write: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self {
            text: Arc::default(),
            on_write: Arc::new(on_write),
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.on_write)()?;
        self.text.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn args(address: &str, more: &[&str]) -> SqlArgs {
    let words = [
        "minerva",
        "sql",
        "--server",
        address,
        "--user",
        "jane",
        "--output-format",
        "csv",
    ];
    match Cli::try_parse_from(words.iter().chain(more)).unwrap().command {
        Command::Sql(args) => args,
        other => panic!("{other:?}"),
    }
}

async fn run_on_paper(args: &SqlArgs) -> (Result<(), Failure>, String) {
    let (_sender, receiver) = watch::channel(false);
    let paper = Paper::new(|| Ok(()));
    (
        run_statements(args, paper.clone(), Interrupt::on(receiver)).await,
        paper.text(),
    )
}

#[tokio::test]
async fn statements_run_in_turn_in_one_session() {
    let fake = Fake::default();
    let address = fake.serve().await;
    let text = "USE c.s; -- then\nSELECT 1;\nSELECT 2";
    let options = [
        "--apikey",
        "key",
        "--catalog",
        "c",
        "--schema",
        "s",
        "--cluster",
        "big",
        "-e",
        text,
    ];
    let (done, paper) = run_on_paper(&args(&address, &options)).await;
    done.unwrap();
    assert_eq!(paper, "n\n7\n\nn\n7\n\n");
    assert_eq!(
        fake.log(),
        [
            "SetSessionOptions catalog [-] [big]",
            "SetSessionOptions schema [session=5] [big]",
            "plan USE c.s [session=5] [big]",
            "read USE c.s [session=5] [big]",
            "plan SELECT 1 [session=5] [big]",
            "read SELECT 1 [session=5] [big]",
            "plan SELECT 2 [session=5] [big]",
            "read SELECT 2 [session=5] [big]",
            "CloseSession [session=5] [big]",
        ]
    );
}

#[tokio::test]
async fn the_first_failure_ends_the_run() {
    let fake = Fake::default();
    let address = fake.serve().await;
    let text = "SELECT 1;\nSELECT\n  broken; SELECT 2";
    let (done, paper) = run_on_paper(&args(&address, &["--apikey", "key", "-e", text])).await;
    assert_eq!(
        done.unwrap_err().to_string(),
        "error: COLUMN_NOT_FOUND: no column `broken` (line 3, column 3)"
    );
    assert_eq!(paper, "n\n7\n\n", "what came before stays");
    assert!(!fake.log().iter().any(|line| line.contains("SELECT 2")));
}

#[tokio::test]
async fn who_is_not_known_does_not_get_in() {
    let fake = Fake::default();
    let address = fake.serve().await;
    let (done, paper) = run_on_paper(&args(&address, &["--apikey", "guess", "-e", "SELECT 1"])).await;
    let failure = done.unwrap_err();
    assert_eq!(failure.to_string(), "error: UNAUTHENTICATED: unknown user or wrong key");
    assert_eq!(format!("{:?}", failure.report()), format!("{:?}", ExitCode::from(3)));
    assert_eq!((paper.as_str(), fake.log().len()), ("", 0));
}

#[tokio::test]
async fn an_interrupt_cancels_the_query() {
    let fake = Fake::default();
    let address = fake.serve().await;
    let (sender, receiver) = watch::channel(false);
    let paper = Paper::new(move || {
        sender.send_replace(true);
        Ok(())
    });
    let args = args(&address, &["--apikey", "key", "-e", "SELECT slow; SELECT 2"]);
    let done = run_statements(&args, paper.clone(), Interrupt::on(receiver)).await;
    assert!(matches!(done, Err(Failure::Interrupted)), "{done:?}");
    assert_eq!(
        fake.log(),
        [
            "plan SELECT slow [-] [-]",
            "read SELECT slow [-] [-]",
            "CancelFlightInfo [-] [-]"
        ]
    );
}

#[tokio::test]
async fn a_reader_that_has_enough_cancels_the_query_and_is_no_failure() {
    let fake = Fake::default();
    let address = fake.serve().await;
    let paper = Paper::new(|| Err(io::ErrorKind::BrokenPipe.into()));
    let (_sender, receiver) = watch::channel(false);
    let args = args(&address, &["--apikey", "key", "-e", "SELECT slow"]);
    let failure = run_statements(&args, paper, Interrupt::on(receiver)).await.unwrap_err();
    assert_eq!(format!("{:?}", failure.report()), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(fake.log().last().map(String::as_str), Some("CancelFlightInfo [-] [-]"));
}

#[test]
fn a_profiles_key_goes_to_its_server_and_is_for_its_user() {
    let profile = Profile {
        server: Some("db.example".to_owned()),
        user: Some("jane".to_owned()),
        key: Some("k3y".to_owned()),
        tls_ca: Some("ca.pem".into()),
        catalog: Some("air".to_owned()),
        schema: None,
    };
    let completed = |words: &[&str]| match Cli::try_parse_from(["minerva", "sql"].iter().chain(words))
        .unwrap()
        .command
    {
        Command::Sql(args) => args.completed(profile.clone()),
        other => panic!("{other:?}"),
    };
    let who = |args: &SqlArgs| {
        (
            args.server.server().to_owned(),
            args.user.clone(),
            args.server.apikey.clone(),
        )
    };
    let says = |server: &str, user: &str, key: Option<&str>| {
        (server.to_owned(), Some(user.to_owned()), key.map(str::to_owned))
    };
    let whole = completed(&[]);
    assert_eq!(who(&whole), says("db.example", "jane", Some("k3y")));
    assert_eq!(
        (whole.catalog.as_deref(), whole.server.tls_ca),
        (Some("air"), Some("ca.pem".into()))
    );
    assert_eq!(
        who(&completed(&["--server", "db.example"])),
        says("db.example", "jane", Some("k3y"))
    );
    assert_eq!(who(&completed(&["--user", "john"])), says("db.example", "john", None));
    assert_eq!(
        who(&completed(&["--apikey", "mine"])),
        says("db.example", "jane", Some("mine"))
    );
    let elsewhere = completed(&["--server", "evil.example"]);
    assert_eq!(who(&elsewhere), ("evil.example".to_owned(), None, None));
    assert_eq!((elsewhere.catalog, elsewhere.server.tls_ca), (None, None));
    assert_eq!(completed(&["--catalog", "mine"]).catalog.as_deref(), Some("mine"));
}

#[test]
fn a_position_is_told_as_in_the_whole_text() {
    let text = "SELECT 1;\n\n  SELECT\n  x";
    let statement = split(text).pop().unwrap();
    let located = |position| {
        let error = ServerError {
            code: "COLUMN_NOT_FOUND".to_owned(),
            message: "no".to_owned(),
            hint: None,
            position: Some(position),
            query_id: None,
            unauthenticated: false,
        };
        match locate(Failure::Server(Box::new(error)), &statement) {
            Failure::Server(error) => error.position.unwrap(),
            other => panic!("{other}"),
        }
    };
    assert_eq!(located((1, 8)), (3, 10), "in its first line");
    assert_eq!(located((2, 3)), (4, 3), "in a later line");
}

#[test]
fn result_sets_are_set_apart_or_refused() {
    let schema = SchemaRef::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let mut people = Results::new(Format::Markdown, Vec::new());
    for _ in 0..2 {
        people.begin(&schema).unwrap().finish().unwrap();
    }
    assert_eq!(
        String::from_utf8(people.sink).unwrap(),
        "| a |\n| ---: |\n\n| a |\n| ---: |\n"
    );
    let mut file = Results::new(Format::Parquet, Vec::new());
    file.begin(&schema).unwrap().finish().unwrap();
    assert!(matches!(file.begin(&schema), Err(Failure::Failed(_))));
}

//! `minerva sql`: runs statements on a coordinator and writes their results.
//!
//! In: statements from -e, -f or standard input, or what is typed at a terminal. Out: result sets on standard output as they arrive, errors on
//! standard error, an exit code. Deliberately absent: any understanding of SQL beyond where a statement ends.

mod interrupt;
mod prompt;
mod split;

use std::{
    fs,
    io::{self, BufWriter, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    slice,
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use arrow_flight::{FlightEndpoint, FlightInfo, decode::FlightRecordBatchStream};
use clap::{Args, builder::BoolishValueParser};
use futures::StreamExt;

use self::{
    interrupt::Interrupt,
    split::{Statement, split},
};
use crate::{
    args::ServerArgs,
    client::{Connection, block_on},
    failure::Failure,
    output::{Format, Output},
    profile::Profile,
};

const AFTER_HELP: &str =
    "Statements are separated by `;` and run in turn in one session; the first that fails ends the run.
Without -e and -f they are read from standard input; at a terminal there is a prompt.
Servers and who one is there may be kept in profiles: `[NAME]` and `server`, `user`, `key`, `tls-ca`, `catalog`, `schema`
in ~/.config/minerva/profiles, mode 0600. Flags and environment win.

Exit codes:
  0    every statement succeeded, or the reader of the results had enough
  1    a statement failed, or its result could not be written
  2    wrong usage
  3    cannot connect, or not authenticated
  130  interrupted by Ctrl-C; the running query is canceled";

/// Runs SQL on a coordinator
#[derive(Args, Debug, Clone)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SqlArgs {
    /// Statements to run
    #[arg(short, long, env = "MINERVA_EXECUTE", value_name = "SQL", conflicts_with = "file")]
    execute: Option<String>,
    /// File of statements to run; - is standard input
    #[arg(short, long, env = "MINERVA_FILE", value_name = "FILE")]
    file: Option<PathBuf>,
    /// How results are written
    #[arg(
        long,
        env = "MINERVA_OUTPUT_FORMAT",
        value_name = "FORMAT",
        default_value = "ALIGNED",
        ignore_case = true
    )]
    output_format: Format,
    /// The profile to take server, user and key from; `default` if there is one
    #[arg(long, env = "MINERVA_PROFILE", value_name = "NAME")]
    profile: Option<String>,
    /// The user to connect as
    #[arg(short, long, env = "MINERVA_USER", value_name = "USER")]
    user: Option<String>,
    /// The catalog (depot) that names are looked up in
    #[arg(long, env = "MINERVA_CATALOG", value_name = "NAME")]
    catalog: Option<String>,
    /// The schema (collection) that names are looked up in
    #[arg(long, env = "MINERVA_SCHEMA", value_name = "NAME")]
    schema: Option<String>,
    /// The cluster to run on, instead of the one the server chooses
    #[arg(long, env = "MINERVA_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,
    /// Say on standard error how long each statement took
    #[arg(long, env = "MINERVA_TIMING", value_parser = BoolishValueParser::new())]
    timing: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) fn run(args: &SqlArgs) -> ExitCode {
    if args.output_format.is_binary() && io::stdout().is_terminal() {
        return Failure::Usage("this format is no text; send it to a file, like `> result.parquet`".to_owned())
            .report();
    }
    match Profile::load(args.profile.as_deref()).and_then(|profile| run_as(&args.clone().completed(profile))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run_as(args: &SqlArgs) -> Result<(), Failure> {
    if args.execute.is_none() && args.file.is_none() && io::stdin().is_terminal() {
        return block_on(prompt::run(args));
    }
    let sink = BufWriter::new(io::stdout());
    block_on(async { run_statements(args, sink, Interrupt::listen()).await })
}

impl SqlArgs {
    /// Takes from a profile what was not given. Its key is for its server and its user: with another of either it stays where it is.
    fn completed(mut self, profile: Profile) -> Self {
        let is_same = |given: &Option<String>, kept: &Option<String>| given.is_none() || given == kept;
        if is_same(&self.server.server, &profile.server) && is_same(&self.user, &profile.user) {
            self.server.apikey = self.server.apikey.or(profile.key);
        }
        if is_same(&self.server.server, &profile.server) {
            self.user = self.user.or(profile.user);
            self.server.tls_ca = self.server.tls_ca.or(profile.tls_ca);
            self.catalog = self.catalog.or(profile.catalog);
            self.schema = self.schema.or(profile.schema);
        }
        self.server.server = self.server.server.or(profile.server);
        self
    }
}

async fn run_statements<W: Write + Send + 'static>(
    args: &SqlArgs,
    sink: W,
    mut interrupt: Interrupt,
) -> Result<(), Failure> {
    let text = read_statements(args)?;
    let statements = split(&text);
    let mut connection = interrupt.or(open(args)).await??;
    let mut results = Results::new(args.output_format, sink);
    for statement in &statements {
        let start = Instant::now();
        let rows = run_statement(&mut connection, statement, &mut results, &mut interrupt, |_| {}).await?;
        if args.timing {
            say_time(start.elapsed(), rows);
        }
    }
    results.sink.flush()?;
    connection.close().await;
    Ok(())
}

/// The text of all statements.
fn read_statements(args: &SqlArgs) -> Result<String, Failure> {
    let text = match (&args.execute, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) if file != Path::new("-") => fs::read_to_string(file).map_err(|error| {
            Failure::Usage(format!(
                "the statements in `{}` cannot be read: {error}",
                file.display()
            ))
        })?,
        (None, _) => {
            let mut text = String::new();
            io::stdin()
                .lock()
                .read_to_string(&mut text)
                .map_err(|error| Failure::Usage(format!("the statements on standard input cannot be read: {error}")))?;
            text
        }
    };
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

async fn open(args: &SqlArgs) -> Result<Connection, Failure> {
    let mut connection = Connection::open(&args.server, args.user.as_deref()).await?;
    if let Some(cluster) = &args.cluster {
        connection.use_cluster(cluster)?;
    }
    if let Some(catalog) = &args.catalog {
        connection.set_option("catalog", catalog).await?;
    }
    if let Some(schema) = &args.schema {
        connection.set_option("schema", schema).await?;
    }
    Ok(connection)
}

/// Where results go, one after the other.
struct Results<W> {
    format: Format,
    sink: W,
    /// Whether tables say the types of their columns.
    with_types: bool,
    result_sets: usize,
}

/// Runs one statement and writes its result; answers how many rows it had, `None` for a statement that has no result. Tells its query's id once
/// it is planned.
async fn run_statement<W: Write + Send + 'static>(
    connection: &mut Connection,
    statement: &Statement<'_>,
    results: &mut Results<W>,
    interrupt: &mut Interrupt,
    planned: impl FnOnce(&[u8]),
) -> Result<Option<u64>, Failure> {
    let in_text = |failure| locate(failure, statement);
    let info = interrupt.or(connection.start(statement.text)).await?.map_err(in_text)?;
    planned(&info.app_metadata);
    let rows = info.total_records;
    let written = interrupt.or(write_result(connection, &info, results)).await;
    match written {
        Err(interrupted) => {
            connection.cancel(info).await;
            Err(interrupted)
        }
        Ok(written) => {
            if matches!(written, Err(Failure::Output(_))) {
                connection.cancel(info).await;
            }
            if matches!(written, Ok(None)) && counts_rows(statement.text) {
                say_written(rows);
            }
            written.map_err(in_text)
        }
    }
}

/// Whether a statement without a result writes rows, so that their number is worth saying.
fn counts_rows(statement: &str) -> bool {
    let mut words = statement.split_whitespace().map(str::to_uppercase);
    match words.next().as_deref() {
        Some("INSERT" | "UPDATE" | "DELETE") => true,
        Some("CREATE") => words.next().as_deref() == Some("TABLE"),
        _ => false,
    }
}

/// Says on standard error how many rows were written, as results are for standard output.
fn say_written(rows: i64) {
    if let Ok(rows) = u64::try_from(rows) {
        eprintln!("written: {rows} {}", if rows == 1 { "row" } else { "rows" });
    }
}

async fn write_result<W: Write + Send + 'static>(
    connection: &mut Connection,
    info: &FlightInfo,
    results: &mut Results<W>,
) -> Result<Option<u64>, Failure> {
    let mut batches = Batches {
        connection,
        schema: planned_schema(info)?,
        endpoints: info.endpoint.iter(),
        stream: None,
    };
    let mut next = batches.next().await?;
    if batches.schema.fields().is_empty() {
        // A statement without a result, USE say: reading it to its end is what runs it.
        while next.is_some() {
            next = batches.next().await?;
        }
        return Ok(None);
    }
    let mut rows = 0;
    let mut output = results.begin(&batches.schema)?;
    while let Some(batch) = next {
        rows += batch.num_rows() as u64;
        output.write(&batch)?;
        next = batches.next().await?;
    }
    output.finish()?;
    Ok(Some(rows))
}

impl<W: Write + Send + 'static> Results<W> {
    fn new(format: Format, sink: W) -> Self {
        Self {
            format,
            sink,
            with_types: false,
            result_sets: 0,
        }
    }

    fn with_types(self) -> Self {
        Self {
            with_types: true,
            ..self
        }
    }

    fn begin(&mut self, schema: &SchemaRef) -> Result<Box<dyn Output + '_>, Failure> {
        if self.result_sets > 0 {
            if self.format.is_binary() {
                return Err(Failure::Failed(
                    "this format holds one result set, and there are several; give the statements one at a time"
                        .to_owned(),
                ));
            }
            if self.format.is_for_people() {
                writeln!(self.sink)?;
            }
        }
        self.result_sets += 1;
        Ok(match self.format {
            Format::Aligned if self.with_types => Format::begin_with_types(schema, &mut self.sink),
            format => format.begin(schema, &mut self.sink)?,
        })
    }
}

/// The batches of all endpoints of a statement, in their order.
struct Batches<'a> {
    connection: &'a mut Connection,
    /// As planned, then as received.
    schema: SchemaRef,
    endpoints: slice::Iter<'a, FlightEndpoint>,
    stream: Option<FlightRecordBatchStream>,
}

impl Batches<'_> {
    async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        loop {
            if let Some(stream) = &mut self.stream {
                let next = stream.next().await.transpose()?;
                if let Some(received) = stream.schema() {
                    self.schema = SchemaRef::clone(received);
                }
                if next.is_some() {
                    return Ok(next);
                }
            }
            let Some(endpoint) = self.endpoints.next() else {
                return Ok(None);
            };
            self.stream = Some(self.connection.read(endpoint).await?);
        }
    }
}

fn planned_schema(info: &FlightInfo) -> Result<SchemaRef, Failure> {
    if info.schema.is_empty() {
        return Ok(SchemaRef::new(Schema::empty()));
    }
    let schema = info.clone().try_decode_schema();
    Ok(SchemaRef::new(schema.map_err(|error| {
        Failure::Failed(format!("the result's schema cannot be read: {error}"))
    })?))
}

/// Moves an error's position from the statement into the whole text.
fn locate(failure: Failure, statement: &Statement<'_>) -> Failure {
    let Failure::Server(mut error) = failure else {
        return failure;
    };
    if let Some((line, column)) = &mut error.position {
        if *line == 1 {
            *column = column.saturating_add(statement.column - 1);
        }
        *line = line.saturating_add(statement.line - 1);
    }
    Failure::Server(error)
}

fn say_time(elapsed: Duration, rows: Option<u64>) {
    let rows = rows.unwrap_or_default();
    let noun = if rows == 1 { "row" } else { "rows" };
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(
        io::stderr().lock(),
        "time: {:.3} s, {rows} {noun}",
        elapsed.as_secs_f64()
    );
}

#[cfg(test)]
mod tests;

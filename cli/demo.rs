//! `minerva demo`: the main job in one process. One federated query over files and a database, run on workers, as two users: two answers.
//!
//! In: nothing but this program, which carries the example's data. Out: both answers side by side, the plan, how to connect; then service.
//! Deliberately absent: any shortcut. It starts a coordinator as `serve` does and talks to it over Flight SQL as any client.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use arrow::{
    array::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use futures::TryStreamExt;
use minerva_coordinator::{Bound, Config, shutdown_when};
use serde_json::{Value, json};
use tokio::runtime::Handle;

pub(crate) use crate::args::DemoArgs;
use crate::{
    args::ServerArgs,
    client::Connection,
    failure::Failure,
    serve::{announce, log_to_stderr, on_runtime, report, start, told_to_leave},
};

/// The example's files, by their path in its folder.
const FILES: &[(&str, &[u8])] = &[
    ("cluster.yaml", include_bytes!("../examples/flights/cluster.yaml")),
    ("datasets.yaml", include_bytes!("../examples/flights/datasets.yaml")),
    ("depots.yaml", include_bytes!("../examples/flights/depots.yaml")),
    ("policies.yaml", include_bytes!("../examples/flights/policies.yaml")),
    ("secrets.yaml", include_bytes!("../examples/flights/secrets.yaml")),
    ("users.yaml", include_bytes!("../examples/flights/users.yaml")),
    ("fleet.db", include_bytes!("../examples/flights/fleet.db")),
    (
        "data/nyc/flights.parquet",
        include_bytes!("../examples/flights/data/nyc/flights.parquet"),
    ),
    (
        "data/nyc/weather.parquet",
        include_bytes!("../examples/flights/data/nyc/weather.parquet"),
    ),
];

/// Which planes flew most in January: flights are Parquet files, airlines and planes tables of a database.
const QUERY: &str = "\
SELECT a.name AS airline, f.tailnum AS plane, p.model, f.origin, count(*) AS flights, max(f.dep_delay) AS worst_delay
FROM air.nyc.flights f
JOIN fleet.main.airlines a ON a.carrier = f.carrier
JOIN fleet.main.planes p ON p.tailnum = f.tailnum
WHERE f.month = 1
GROUP BY a.name, f.tailnum, p.model, f.origin
ORDER BY flights DESC, airline, plane
LIMIT 8";

const USERS: [&str; 2] = ["analyst", "steward"];
const KEY_SECONDS: u64 = 24 * 60 * 60;
const KEY_NAME: &str = "demo";
/// The widest value that is printed whole; a hash has 64 letters.
const MAX_WIDTH: usize = 18;

/// Runs the command.
pub(crate) fn run(args: DemoArgs) -> ExitCode {
    log_to_stderr();
    report(on_runtime(async |compute| {
        let (data, temporary) = match args.data.clone() {
            Some(data) => (data, None),
            None => {
                let folder = TemporaryFolder::make()?;
                (folder.0.clone(), Some(folder))
            }
        };
        let served = serve(&args, &data, compute).await;
        drop(temporary);
        served
    }))
}

async fn serve(args: &DemoArgs, data: &Path, compute: Handle) -> Result<(), String> {
    let resources = data.join("flights");
    unpack(&resources)?;
    let mut config = Config::new(vec![resources.clone()], data.to_owned());
    config.host = args.doors.host;
    config.http_port = args.doors.http_port;
    config.flight_port = args.doors.flight_port;
    config.cluster_port = args.doors.cluster_port;
    // The example is small: at the usual size of a task all of it would stay on one worker, and there would be nothing to see.
    config.bytes_per_task = 1 << 20;
    config.compute_on = Some(compute);
    let bound = start(config, Some(args.workers)).await?;
    let flight = flight_address(&bound)?;
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let once = args.once;
    let shutdown = shutdown_when(async move {
        if once {
            // The sender is dropped with the show, at its end or its failure.
            let _ = left.await;
        } else {
            tokio::select! {
                _ = left => {}
                () = told_to_leave() => {}
            }
        }
    });
    announce(&bound)?;
    let serving = bound.serve(shutdown);
    let show = async move {
        let shown = show(&flight, data).await.map_err(|failure| failure.to_string());
        // Dropping the sender ends the service.
        let kept = (!once && shown.is_ok()).then_some(leave);
        (shown, kept)
    };
    let (served, (shown, _kept)) = tokio::join!(serving, show);
    shown.and(served)
}

fn flight_address(bound: &Bound) -> Result<String, String> {
    let addresses = bound.addresses();
    let found = addresses
        .iter()
        .find(|(name, _)| *name == "flight")
        .map(|(_, address)| address.to_string());
    found.ok_or_else(|| "the Flight SQL door is not open".to_owned())
}

/// Writes the example's files where they are not yet, so that what was changed there stays.
fn unpack(folder: &Path) -> Result<(), String> {
    for (name, bytes) in FILES {
        let path = folder.join(name);
        let write = || -> io::Result<()> {
            if path.exists() {
                return Ok(());
            }
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            fs::write(&path, bytes)
        };
        write().map_err(|error| format!("file `{}` cannot be written: {error}", path.display()))?;
    }
    Ok(())
}

/// One user's answer, as text.
struct Answer {
    user: &'static str,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

async fn show(flight: &str, data: &Path) -> Result<(), Failure> {
    let server = |apikey: Option<String>| ServerArgs {
        server: Some(flight.to_owned()),
        apikey,
        tls_ca: None,
        insecure: true,
        data: data.to_owned(),
    };
    let mut admin = Connection::open(&server(None), None).await?;
    let mut answers = Vec::new();
    let mut keys = Vec::new();
    let mut plan = Vec::new();
    for user in USERS {
        let key = new_key(&mut admin, user).await?;
        let mut connection = Connection::open(&server(Some(key.clone())), Some(user)).await?;
        answers.push(answer(user, &collect(&mut connection, QUERY).await?)?);
        if user == "analyst" {
            plan = collect(&mut connection, &format!("EXPLAIN {QUERY}")).await?;
        }
        connection.close().await;
        keys.push((user, key));
    }
    admin.close().await;
    let plan = answer("analyst", &plan)?;
    let mut out = io::stdout().lock();
    write_show(&mut out, &answers, &plan, &keys, flight, data)?;
    out.flush()?;
    Ok(())
}

/// A key for the demonstration; one from an earlier time is replaced.
async fn new_key(admin: &mut Connection, user: &str) -> Result<String, Failure> {
    let name = json!({"user": user, "name": KEY_NAME});
    // There is none at the first time.
    let _ = admin.call("minerva.apikey.delete", &name).await;
    let wanted = json!({"user": user, "name": KEY_NAME, "lifetime_seconds": KEY_SECONDS});
    let made = admin.call("minerva.apikey.create", &wanted).await?;
    let key = made.get("key").and_then(Value::as_str);
    key.map(str::to_owned)
        .ok_or_else(|| Failure::Failed("the server made an API key and did not tell it".to_owned()))
}

async fn collect(connection: &mut Connection, sql: &str) -> Result<Vec<RecordBatch>, Failure> {
    let info = connection.start(sql).await?;
    let mut batches = Vec::new();
    for endpoint in &info.endpoint {
        let stream = connection.read(endpoint).await?;
        batches.extend(stream.try_collect::<Vec<_>>().await?);
    }
    Ok(batches)
}

fn answer(user: &'static str, batches: &[RecordBatch]) -> Result<Answer, Failure> {
    let unreadable = |error: arrow::error::ArrowError| Failure::Failed(format!("the answer cannot be shown: {error}"));
    let options = FormatOptions::default().with_null("NULL");
    let mut answer = Answer {
        user,
        header: Vec::new(),
        rows: Vec::new(),
    };
    for batch in batches {
        answer.header = batch
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(unreadable)?;
        for row in 0..batch.num_rows() {
            answer
                .rows
                .push(columns.iter().map(|column| column.value(row).to_string()).collect());
        }
    }
    Ok(answer)
}

fn write_show(
    out: &mut impl Write,
    answers: &[Answer],
    plan: &Answer,
    keys: &[(&str, String)],
    flight: &str,
    data: &Path,
) -> io::Result<()> {
    writeln!(out, "\nOne statement over Parquet files and a SQLite database:\n")?;
    for line in QUERY.lines() {
        writeln!(out, "    {line}")?;
    }
    writeln!(
        out,
        "\nThe same statement, two users, two answers: policies hold while the query is parsed.\n"
    )?;
    let blocks: Vec<Vec<String>> = answers.iter().map(block).collect();
    let width = blocks.first().map_or(0, |block| {
        block.iter().map(|line| line.chars().count()).max().unwrap_or(0)
    });
    let height = blocks.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        let cells: Vec<&str> = blocks
            .iter()
            .map(|block| block.get(line).map_or("", String::as_str))
            .collect();
        let (left, right) = (cells.first().unwrap_or(&""), cells.get(1).unwrap_or(&""));
        writeln!(out, "  {left:width$}  |  {right}")?;
    }
    writeln!(
        out,
        "\nThe analyst's plan, run on the workers; what lies behind a policy's barrier is not shown to the analyst:\n"
    )?;
    for row in &plan.rows {
        writeln!(out, "    {}", row.concat())?;
    }
    writeln!(out, "\nConnect, in another terminal:\n")?;
    for (user, key) in keys {
        writeln!(
            out,
            "    minerva sql --server {flight} --user {user} --apikey {key} -e 'SELECT * FROM air.nyc.flights LIMIT 5'"
        )?;
    }
    writeln!(out, "\nFrom Python (pip install adbc-driver-flightsql pyarrow):\n")?;
    if let Some((user, key)) = keys.first() {
        writeln!(out, "    import adbc_driver_flightsql.dbapi as dbapi")?;
        writeln!(
            out,
            "    connection = dbapi.connect(\"grpc://{flight}\", db_kwargs={{\"username\": \"{user}\", \"password\": \"{key}\"}})"
        )?;
        writeln!(out, "    cursor = connection.cursor()")?;
        writeln!(
            out,
            "    cursor.execute(\"SELECT origin, count(*) FROM air.nyc.flights GROUP BY origin\")"
        )?;
        writeln!(out, "    print(cursor.fetch_arrow_table())")?;
    }
    writeln!(
        out,
        "\nThe manifests are in {}; change one and the next query obeys it.",
        data.join("flights").display()
    )
}

/// One answer as lines.
fn block(answer: &Answer) -> Vec<String> {
    let shorten = |text: &String| match text.chars().count() > MAX_WIDTH {
        true => text.chars().take(MAX_WIDTH - 1).chain(['…']).collect(),
        false => text.clone(),
    };
    let rows: Vec<Vec<String>> = std::iter::once(&answer.header)
        .chain(&answer.rows)
        .map(|row| row.iter().map(shorten).collect())
        .collect();
    let columns = answer.header.len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|text| text.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        row.iter()
            .zip(&widths)
            .map(|(text, width)| format!("{text:width$}"))
            .collect::<Vec<_>>()
            .join("  ")
    };
    let mut lines = vec![format!("{}:", answer.user), String::new()];
    for (index, row) in rows.iter().enumerate() {
        lines.push(line(row));
        if index == 0 {
            lines.push(
                widths
                    .iter()
                    .map(|width| "-".repeat(*width))
                    .collect::<Vec<_>>()
                    .join("  "),
            );
        }
    }
    lines
}

/// A folder that goes with the demonstration.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn make() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("minerva-demo-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("folder `{}` cannot be made: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // Nothing of value is left there; the next demonstration has a folder of its own.
        let _ = fs::remove_dir_all(&self.0);
    }
}

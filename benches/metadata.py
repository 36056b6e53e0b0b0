"""How long drivers wait for the list of all tables: GetTables over thousands of tables of each kind of depot.

    cargo build --release
    python benches/metadata.py --minerva PATH-OF-THE-PROGRAM [--tables 2000] [--columns 10] [--runs 9] [--depots lite files pg pgnow]

Serves a SQLite file, a folder of Parquet files and a private PostgreSQL (see postgres.py) with so many tables of ten columns each, as an operator
and as a user who may see all but one of them and has a mask on each. `pg` is listed from what it said before, `pgnow` is the same database with
`metadataTtl: 0`, asked each time; what the server's memory grows by with the first listings of `pg` is printed as well. The goal is 150 ms for the median of the warm calls. Needs pyarrow and
adbc-driver-flightsql.
"""

import argparse
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as parquet

import postgres

GOAL = 150
COLUMNS = {
    "id": "bigint NOT NULL", "name": "text", "born": "date", "seen": "timestamp", "amount": "numeric(18,2)", "active": "boolean", "ratio": "double precision",
    "code": "varchar(10)", "tags": "text", "note": "text",
}
ARROW = pa.schema({
    "id": pa.int64(), "name": pa.string(), "born": pa.date32(), "seen": pa.timestamp("us"), "amount": pa.decimal128(18, 2), "active": pa.bool_(),
    "ratio": pa.float64(), "code": pa.string(), "tags": pa.string(), "note": pa.string(),
})
def more_columns(count):
    """Columns with names of their own beyond the ten, as real tables have them."""
    global ARROW
    for number in range(len(COLUMNS), count):
        COLUMNS[f"attribute_{number}"] = "text"
        ARROW = ARROW.append(pa.field(f"attribute_{number}", pa.string()))


MANIFESTS = """\
{name: lite, version: v2alpha, type: depot, depot: {type: SQLITE, sqlite: {path: ../lite.db}}}
---
{name: files, version: v2alpha, type: depot, depot: {type: FILE, file: {path: ../files, format: PARQUET}}}
---
{name: pg, version: v2alpha, type: depot, depot: {type: POSTGRESQL, postgresql: {host: 127.0.0.1, port: PORT, database: postgres, params: {sslmode: disable}}, secrets: [{name: pg-r}]}}
---
{name: pgnow, version: v2alpha, type: depot, depot: {type: POSTGRESQL, metadataTtl: 0, postgresql: {host: 127.0.0.1, port: PORT, database: postgres, params: {sslmode: disable}}, secrets: [{name: pg-r}]}}
---
{name: pg-r, version: v1, type: instance-secret, instance-secret: {data: {username: admin, password: none}}}
---
{name: jane, version: v1, type: user, user: {tags: [roles:id:analyst]}}
---
{name: readers, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:analyst]}, predicates: [select], objects: {paths: ["dataos://*:*/*"]}, allow: true}}}
---
{name: not-the-first, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:analyst]}, predicates: [select], objects: {paths: ["dataos://*:*/t0000"]}, allow: false}}}
---
{name: no-names, version: v1, type: policy, policy: {data: {type: mask, priority: 50, selector: {user: {tags: [roles:id:analyst]}, column: {names: [name]}}, mask: {operator: redact}}}}
"""


SCHEMAS = {"lite": "main", "files": "main", "pg": "public", "pgnow": "public"}


def resident(process):
    """The memory of a process in MiB."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def field(number, payload):
    assert len(payload) < 128 or number == 2
    length, head = len(payload), bytearray([number << 3 | 2])
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes(head) + bytes([length]) + payload


def write(folder, tables, server):
    create = [f"CREATE TABLE t{number:04} ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())});" for number in range(tables)]
    with sqlite3.connect(folder / "lite.db") as database:
        for statement in create:
            database.execute(statement)
    psql = [server.bin / "psql", "-h", "127.0.0.1", "-p", str(server.port), "-U", "admin", "-q", "postgres"]
    subprocess.run(psql, input="\n".join(create), text=True, check=True)
    (folder / "files" / "main").mkdir(parents=True)
    first = folder / "files" / "main" / "t0000.parquet"
    parquet.write_table(ARROW.empty_table(), first)
    for number in range(1, tables):
        shutil.copy(first, first.with_name(f"t{number:04}.parquet"))
    (folder / "resources").mkdir()
    (folder / "resources" / "all.yaml").write_text(MANIFESTS.replace("PORT", str(server.port)))


def measure(address, user, key, tables, runs, depots):
    failed = False
    with flight.FlightClient(f"grpc://{address}") as client:
        options = flight.FlightCallOptions(headers=[client.authenticate_basic_token(user, key)])

        def ask(kind, message):
            command = field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{kind}".encode()) + field(2, message)
            begun = time.monotonic()
            info = client.get_flight_info(flight.FlightDescriptor.for_command(command), options)
            rows = client.do_get(info.endpoints[0].ticket, options).read_all().num_rows
            return (time.monotonic() - begun) * 1000, rows

        for depot in depots:
            visible = tables - (user != "admin")
            for what, kind, message, expected in (
                ("GetTables", "CommandGetTables", field(1, depot.encode()) + b"\x28\x00", visible),
                ("GetTables with schemas", "CommandGetTables", field(1, depot.encode()) + b"\x28\x01", visible),
                ("columns of one table", "CommandStatementQuery", field(1, f"SELECT * FROM {depot}.information_schema.columns WHERE table_schema = '{SCHEMAS[depot]}' AND table_name = 't0001'".encode()), len(COLUMNS)),
                ("information_schema.columns", "CommandStatementQuery", field(1, f"SELECT * FROM {depot}.information_schema.columns WHERE table_schema <> 'information_schema'".encode()), visible * len(COLUMNS)),
            ):
                first, *warm = (ask(kind, message) for _ in range(runs + 1))
                # The engine's own tables are in every listing, five of them at least.
                assert expected <= first[1] <= expected + 20, (depot, what, first[1], expected)
                milliseconds = statistics.median(taken for taken, _ in warm)
                failed |= milliseconds > GOAL
                print(f"{user:6} {depot:6} {what:27} first {first[0]:7.1f} ms   warm {milliseconds:6.1f} ms   {first[1]} rows{'' if milliseconds <= GOAL else f'   OVER {GOAL} ms'}", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minerva", required=True)
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--depots", nargs="+", default=["lite", "files", "pg", "pgnow"])
    arguments = parser.parse_args()
    more_columns(arguments.columns)
    folder, database = (pathlib.Path(tempfile.mkdtemp(prefix="minerva-bench-")) for _ in range(2))
    server = postgres.Server(database)
    program = None
    try:
        write(folder, arguments.tables, server)
        data = folder / "data"
        ports = ["--http-port", "0", "--flight-port", "0", "--cluster-port", "0"]
        serve = [arguments.minerva, "serve", "--resources", folder / "resources", "--data", data, *ports]
        program = subprocess.Popen(list(map(str, serve)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        address = ""
        for line in program.stdout:
            if line.startswith("flight "):
                address = line.split()[1]
            if line.strip() == "ready":
                break
        admin = (data / "admin-key").read_text().strip()
        make = [arguments.minerva, "user", "apikey", "create", "-u", "jane", "-d", "1h", "--server", address, "--data", str(data)]
        jane = subprocess.run(make, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        before = resident(program)
        failed = [measure(address, user, key, arguments.tables, arguments.runs, arguments.depots) for user, key in (("admin", admin), ("jane", jane))]
        print(f"memory {before:.0f} MiB before, {resident(program):.0f} MiB after")
        return 1 if any(failed) else 0
    finally:
        if program is not None:
            program.terminate()
            program.wait()
        server.stop()
        for made in (folder, database):
            shutil.rmtree(made)


if __name__ == "__main__":
    sys.exit(main())

"""Three promises about sources that no other benchmark measures: full reads of SQLite, memory under a slow client, and a join of two databases.

    python benches/sources.py --minerva PATH [--scale 0.1] [--runs 5] [--only sqlite,slow,two]

- `sqlite`: TPC-H's lineitem from a SQLite file to an Arrow client, against DuckDB's sqlite_scanner, in turn; the median of the runs. Goal: at most 0.8.
- `slow`: a client that reads lineitem from PostgreSQL and from SQLite at a few batches a second. Printed is the most memory that the server had above what it had
  before, in MiB (goal: at most 300), and how many rows one reader of the source had sent after the first batches: it is throttled when that is not all of them.
- `two`: a join of two PostgreSQL databases on a key that few rows of the large side have; rows fetched for each row of the answer. Goal: at most 2.

Starts servers of its own. Needs what `make test` installs, duckdb_extension_postgres_scanner==1.5.5 and duckdb_extension_sqlite_scanner==1.5.5.
"""

import argparse
import pathlib
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time

import duckdb
import duckdb_extension_sqlite_scanner
import postgres
import psycopg
import pyarrow.flight as flight
from pushdown import MANIFESTS, minerva_server
from federation import field

FILE = """---
name: lite
version: v2alpha
type: depot
depot: {{type: SQLITE, sqlite: {{path: {path}}}}}
---
name: other
version: v2alpha
type: depot
depot:
  type: POSTGRESQL
  postgresql: {{host: 127.0.0.1, port: {port}, database: other, params: {{sslmode: disable}}}}
  secrets: [{{name: pg-rw}}]
"""
LINEITEM = """CREATE TABLE lineitem (l_orderkey BIGINT NOT NULL, l_partkey BIGINT NOT NULL, l_suppkey BIGINT NOT NULL, l_linenumber INTEGER NOT NULL,
    l_quantity DOUBLE NOT NULL, l_extendedprice DOUBLE NOT NULL, l_discount DOUBLE NOT NULL, l_tax DOUBLE NOT NULL, l_returnflag TEXT NOT NULL, l_linestatus TEXT NOT NULL,
    l_shipdate DATE NOT NULL, l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL, l_shipinstruct TEXT NOT NULL, l_shipmode TEXT NOT NULL, l_comment TEXT NOT NULL)"""
SQLITE = {
    "all 16 columns": "*",
    "3 columns": "l_orderkey, l_extendedprice, l_shipdate",
}
#: What the server has sent so far: sizes of COPY are told while it runs.
SENT = "SELECT coalesce(max(tuples_processed), 0) FROM pg_stat_progress_copy"
JOINED = "SELECT o.o_orderkey, p.note FROM pg.public.orders o JOIN other.public.picked p ON o.o_orderkey = p.orderkey"


class Reader:
    """A client of Flight SQL that sees batches as they come."""

    def __init__(self, server):
        self.client = flight.FlightClient(f"grpc://{server.addresses['flight']}")
        self.options = flight.FlightCallOptions(headers=[self.client.authenticate_basic_token("admin", server.keys["admin"])])

    def batches(self, sql):
        message = field(1, b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery") + field(2, field(1, sql.encode()))
        found = self.client.get_flight_info(flight.FlightDescriptor.for_command(message), self.options)
        for endpoint in found.endpoints:
            for chunk in self.client.do_get(endpoint.ticket, self.options):
                yield chunk.data

    def rows(self, sql):
        return sum(batch.num_rows for batch in self.batches(sql))


def memory(process):
    """Resident memory in MiB."""
    for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def sqlite(reader, path, runs):
    extension, = pathlib.Path(duckdb_extension_sqlite_scanner.__file__).parent.glob("extensions/*/*.duckdb_extension")
    other = duckdb.connect()
    other.execute(f"LOAD '{extension}'")
    other.execute(f"ATTACH '{path}' AS lite (TYPE sqlite, READ_ONLY)")
    for name, columns in SQLITE.items():
        works = {
            "minerva": lambda: reader.rows(f"SELECT {columns} FROM lite.main.lineitem"),
            "duckdb": lambda: sum(batch.num_rows for batch in other.execute(f"SELECT {columns} FROM lite.lineitem").to_arrow_reader(65536)),
        }
        seconds, rows = {work: [] for work in works}, set()
        for _ in range(runs):
            for work, run in works.items():
                begun = time.monotonic()
                rows.add(run())
                seconds[work].append(time.monotonic() - begun)
        ours, theirs = (statistics.median(seconds[work]) for work in works)
        print(f"sqlite, {name}: minerva {ours:.3f} s, duckdb {theirs:.3f} s, ratio {ours / theirs:.2f}, rows {sorted(rows)}", flush=True)


def slow(reader, process, table, counter):
    """Reads a table slowly, and looks at the server all the time."""
    before, most, ended = memory(process), 0.0, threading.Event()

    def watch():
        nonlocal most
        while not ended.is_set():
            most = max(most, memory(process))
            time.sleep(0.02)

    watching = threading.Thread(target=watch)
    watching.start()
    rows, read, sent = 0, None, None
    for number, batch in enumerate(reader.batches(f"SELECT * FROM {table}")):
        rows += batch.num_rows
        if number < 40:
            time.sleep(0.25)
        if number == 10 and counter:
            sent, read = counter.execute(SENT).fetchone()[0], rows
    ended.set()
    watching.join()
    throttled = f", {sent} rows sent by one of its readers when {read} were read" if sent is not None else ""
    print(f"slow client of {table}: {rows} rows, {before:.0f} MiB before, at most {most:.0f} MiB, {most - before:.0f} more{throttled}", flush=True)


def two(reader, place, counter):
    with psycopg.connect(**{**place, "dbname": "other"}) as other:
        other.execute("CREATE TABLE picked AS SELECT i * 32 * 100 AS orderkey, 'note ' || i AS note FROM generate_series(1, 40) i")
        other.execute("ANALYZE picked")
        picked = other.execute("SELECT count(*) FROM picked").fetchone()[0]
    counter.execute("SELECT pg_stat_statements_reset()")
    found = reader.rows(JOINED)
    time.sleep(0.1)
    sent = counter.execute("SELECT coalesce(sum(rows), 0)::bigint FROM pg_stat_statements WHERE query ~ 'orders' AND query ~ 'COPY'").fetchone()[0]
    whole = counter.execute("SELECT count(*) FROM orders").fetchone()[0]
    print(f"two databases: {picked} rows there, {found} in the answer, {sent} of {whole} orders fetched, {sent / max(found, 1):.2f} for each", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minerva", required=True)
    parser.add_argument("--scale", default="0.1")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="sqlite,slow,two")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="minerva-bench-"))
    (folder / "pg").mkdir()
    # The server runs as another user.
    folder.chmod(0o755)
    path = folder / "lite.db"
    database = postgres.Server(folder / "pg", shared_preload_libraries="'pg_stat_statements'", shared_buffers="1GB")
    try:
        place = {"host": "127.0.0.1", "port": database.port, "user": "admin", "dbname": "postgres", "autocommit": True}
        with psycopg.connect(**place) as counter:
            counter.execute("CREATE EXTENSION pg_stat_statements")
            counter.execute("CREATE DATABASE other")
            server = minerva_server.Server(arguments.minerva, folder / "minerva")
            text = MANIFESTS.format(scale=arguments.scale, port=database.port) + FILE.format(path=path, port=database.port)
            (folder / "minerva/resources/sources.yaml").write_text(text)
            lite = sqlite3.connect(path)
            lite.execute(LINEITEM)
            with server:
                reader = Reader(server)
                if "sqlite" in wanted or "slow" in wanted:
                    for batch in reader.batches("SELECT * FROM tpch.tpch.lineitem"):
                        rows = zip(*(column.cast("double").to_pylist() if str(column.type).startswith("decimal") else
                                     column.cast("string").to_pylist() if str(column.type).startswith("date") else column.to_pylist() for column in batch.columns))
                        lite.executemany(f"INSERT INTO lineitem VALUES ({', '.join('?' * 16)})", rows)
                lite.commit()
                for table in ["lineitem", "orders"]:
                    reader.rows(f"CREATE TABLE pg.public.{table} AS SELECT * FROM tpch.tpch.{table}")
                counter.execute("ALTER TABLE orders ADD PRIMARY KEY (o_orderkey)")
                counter.execute("VACUUM ANALYZE")
                if "sqlite" in wanted:
                    sqlite(reader, path, arguments.runs)
                if "two" in wanted:
                    two(reader, place, counter)
                if "slow" in wanted:
                    slow(reader, server.process.pid, "pg.public.lineitem", counter)
                    slow(reader, server.process.pid, "lite.main.lineitem", None)
    finally:
        database.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

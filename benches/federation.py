"""How fast queries over PostgreSQL are: Minerva against DuckDB's scanner, against PostgreSQL itself, and against the same tables in Parquet, in one run.

    python benches/federation.py --minerva PATH [--scale 1] [--runs 3] [--only tpch,mixed,group,small,joined]

Starts a PostgreSQL of its own and lets Minerva write TPC-H into it and into Parquet. Orders, lineitem, customer and supplier have primary keys there, part and
partsupp none. Of several runs the shortest counts. Needs what `make test` installs, and duckdb_extension_postgres_scanner==1.5.5.
"""

import argparse
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

# Behind this folder, which has a `pushdown` of its own.
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "python"))

import minerva_server
import postgres
import psycopg
import pyarrow.flight as flight
from pushdown import MANIFESTS, TABLES, duck, minerva_client

LAKE = """---
name: lake
version: v2alpha
type: depot
depot: {{type: FILE, acl: rw, file: {{path: {path}, format: PARQUET}}}}
"""
KEYS = {"orders": "o_orderkey", "lineitem": "l_orderkey, l_linenumber", "customer": "c_custkey", "supplier": "s_suppkey"}
#: What is in PostgreSQL when the large tables are in Parquet.
SMALL = ["region", "nation", "supplier", "customer", "part"]
GROUP = "SELECT l_returnflag, l_linestatus, sum(l_extendedprice * (1 - l_discount)) FROM lineitem GROUP BY l_returnflag, l_linestatus"
FEW = {
    "count": "SELECT count(*) FROM customer",
    "top 10": "SELECT c_custkey, c_acctbal FROM customer ORDER BY c_acctbal DESC, c_custkey LIMIT 10",
    "limit 10": "SELECT c_custkey, c_name FROM customer LIMIT 10",
    "point": "SELECT * FROM orders WHERE o_orderkey = 7",
}
JOINED = """SELECT o_orderpriority, sum(l_extendedprice * (1 - l_discount)) FROM {lineitem} JOIN {orders} ON l_orderkey = o_orderkey
JOIN {customer} ON o_custkey = c_custkey
WHERE c_mktsegment = 'BUILDING' AND o_orderdate >= DATE '1995-03-01' AND o_orderdate < DATE '1995-03-08' GROUP BY o_orderpriority"""


def shortest(run, runs):
    best = None
    for _ in range(runs):
        begun = time.monotonic()
        run()
        best = min(best or 1e9, time.monotonic() - begun)
    return best


def compared(names, works, runs):
    """Runs each work by both, in turn, and prints both times and their ratio."""
    sums = [0.0, 0.0]
    print(f"{'':12}{names[0]:>12}{names[1]:>12}{'ratio':>8}")
    for name, pair in works:
        times = [shortest(run, runs) for run in pair]
        sums = [total + found for total, found in zip(sums, times)]
        print(f"{name:12}{times[0]:12.3f}{times[1]:12.3f}{times[0] / times[1]:8.2f}", flush=True)
    if len(works) > 1:
        print(f"{'all':12}{sums[0]:12.3f}{sums[1]:12.3f}{sums[0] / sums[1]:8.2f}", flush=True)


def field(number, payload):
    """A field of a protobuf message, of fewer than 16,384 bytes."""
    size = len(payload)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + payload


def two_calls(server):
    """Runs a statement as plainly as Flight SQL can: one call that plans it, and one for its rows."""
    client = flight.FlightClient(f"grpc://{server.addresses['flight']}")
    options = flight.FlightCallOptions(headers=[client.authenticate_basic_token("admin", server.keys["admin"])])

    def run(sql):
        message = field(1, b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery") + field(2, field(1, sql.encode()))
        found = client.get_flight_info(flight.FlightDescriptor.for_command(message), options)
        return client.do_get(found.endpoints[0].ticket, options).read_all()

    return run


def measure(arguments, ours, direct, theirs, database, lake):
    root = pathlib.Path(__file__).resolve().parent.parent
    queries = [(f"q{number}", (root / f"tests/tpch/q{number}.sql").read_text().strip().rstrip(";")) for number in range(1, 23)]
    wanted = arguments.only.split(",")
    if "tpch" in wanted:
        print("22 queries, every table in PostgreSQL, seconds")
        works = [(name, (lambda sql=sql: ours(sql), lambda sql=sql: theirs(sql))) for name, sql in queries]
        compared(("minerva", "duckdb"), works, arguments.runs)
    if "mixed" in wanted:
        print("22 queries, large tables in Parquet and small ones in PostgreSQL, against all in Parquet, seconds")
        for table in TABLES:
            place = "pg.public" if table in SMALL else "lake.tpch"
            ours(f"CREATE VIEW notes.mixed.{table} AS SELECT * FROM {place}.{table}")

        def at(place, sql):
            ours(f"USE {place}")
            ours(sql)

        works = [
            (name, (lambda sql=sql: at("notes.mixed", sql), lambda sql=sql: at("lake.tpch", sql))) for name, sql in queries
        ]
        compared(("mixed", "parquet"), works, arguments.runs)
        ours("USE pg.public")
    if "group" in wanted:
        print("groups of lineitem, against PostgreSQL itself, seconds")
        compared(("minerva", "postgresql"), [("group", (lambda: ours(GROUP), lambda: database.execute(GROUP).fetchall()))], max(arguments.runs, 5))
    if "small" in wanted:
        print("small statements, medians of 200, milliseconds: Minerva by two calls of Flight SQL, by its ADBC driver, and PostgreSQL")
        for name, sql in {"no table": "SELECT 1", **FEW}.items():
            ways = (lambda: direct(sql.replace("FROM ", "FROM pg.public.")), lambda: ours(sql), lambda: database.execute(sql).fetchall())
            found = [[], [], []]
            for _ in range(200):
                for times, run in zip(found, ways):
                    begun = time.monotonic()
                    run()
                    times.append(1000 * (time.monotonic() - begun))
            two, driver, there = (statistics.median(times) for times in found)
            print(f"{name:12}{two:12.2f}{driver:12.2f}{there:12.2f}{two - there:+8.2f}", flush=True)
    if "joined" in wanted:
        print("lineitem in Parquet, orders and customer in PostgreSQL, seconds")
        own = JOINED.format(lineitem="lake.tpch.lineitem", orders="pg.public.orders", customer="pg.public.customer")
        other = JOINED.format(lineitem=f"read_parquet('{lake}/tpch/lineitem/**/*.parquet')", orders="orders", customer="customer")
        compared(("minerva", "duckdb"), [("joined", (lambda: ours(own), lambda: theirs(other)))], max(arguments.runs, 5))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minerva", required=True)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="tpch,mixed,group,small,joined")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="minerva-bench-"))
    (folder / "pg").mkdir()
    (folder / "lake").mkdir()
    # The server runs as another user.
    folder.chmod(0o755)
    database = postgres.Server(folder / "pg", shared_buffers="2GB", work_mem="256MB", max_wal_size="8GB")
    try:
        place = {"host": "127.0.0.1", "port": database.port, "user": "admin", "dbname": "postgres", "autocommit": True}
        with psycopg.connect(**place) as connection:
            server = minerva_server.Server(arguments.minerva, folder / "minerva")
            text = MANIFESTS.format(scale=arguments.scale, port=database.port) + LAKE.format(path=folder / "lake")
            (folder / "minerva/resources/federation.yaml").write_text(text)
            with server:
                ours = minerva_client(server)
                for table in TABLES:
                    ours(f"CREATE TABLE pg.public.{table} AS SELECT * FROM tpch.tpch.{table}")
                    ours(f"CREATE TABLE lake.tpch.{table} AS SELECT * FROM tpch.tpch.{table}")
                    if table in KEYS:
                        connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY ({KEYS[table]})")
                connection.execute("VACUUM ANALYZE")
                ours("CALL system.refresh('pg')")
                ours("USE pg.public")
                measure(arguments, ours, two_calls(server), duck(database.port), connection, folder / "lake")
    finally:
        database.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

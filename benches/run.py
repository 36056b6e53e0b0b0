"""Minerva against plain DataFusion and DuckDB on the same files in one run; every figure is a ratio.

    python benches/run.py --minerva PATH [--data FOLDER] [--scale 1] [--runs 3] [--write]

FOLDER/lake/tpch/*.parquet is made when it is not there. `--write` puts the figures into
benches/RESULTS.md. Needs what `make test` installs: adbc-driver-flightsql, duckdb, pyarrow.
"""

import argparse
import datetime
import json
import os
import pathlib
import pty
import signal
import statistics
import subprocess
import tempfile
import time

import adbc_driver_flightsql.dbapi as flight
import duckdb

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUERIES = {n: (ROOT / f"tests/tpch/q{n}.sql").read_text().strip().rstrip(";") for n in range(1, 23)}
TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]

RESOURCES = """
name: lake
version: v2alpha
type: depot
depot: {{type: FILE, file: {{path: {lake}, format: PARQUET}}}}
---
name: plain
version: v1
type: user
user: {{tags: [roles:id:reader]}}
---
name: governed
version: v1
type: user
user: {{tags: [roles:id:reader, roles:id:governed]}}
---
name: readers
version: v1
type: policy
policy:
  access: {{subjects: {{tags: [[roles:id:reader]]}}, predicates: [select], objects: {{paths: ['dataos://lake:tpch/*']}}, allow: true}}
---
name: items
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    dataset_id: lake.tpch.lineitem
    selector: {{user: {{match: any, tags: [roles:id:governed]}}}}
    filters: [{{column: l_quantity, operator: greater_than, value: 2}}]
---
name: orders
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    dataset_id: lake.tpch.orders
    selector: {{user: {{match: any, tags: [roles:id:governed]}}}}
    filters: [{{column: o_orderpriority, operator: not_equals, value: 5-LOW}}]
---
name: words
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 10
    depot: lake
    selector: {{user: {{match: any, tags: [roles:id:governed]}}, column: {{names: [o_comment, c_address, s_address]}}}}
    mask: {{operator: redact}}
"""

#: The same as the policies above, written by hand.
BY_HAND = {
    "lineitem": "SELECT * FROM lake.tpch.lineitem WHERE l_quantity > 2",
    "orders": "SELECT o_orderkey, o_custkey, o_orderstatus, o_totalprice, o_orderdate, o_orderpriority, o_clerk, o_shippriority, "
    "CASE WHEN o_comment IS NULL THEN NULL ELSE 'REDACTED' END AS o_comment FROM lake.tpch.orders WHERE o_orderpriority <> '5-LOW'",
    "customer": "SELECT c_custkey, c_name, CASE WHEN c_address IS NULL THEN NULL ELSE 'REDACTED' END AS c_address, c_nationkey, c_phone, "
    "c_acctbal, c_mktsegment, c_comment FROM lake.tpch.customer",
    "supplier": "SELECT s_suppkey, s_name, CASE WHEN s_address IS NULL THEN NULL ELSE 'REDACTED' END AS s_address, s_nationkey, s_phone, "
    "s_acctbal, s_comment FROM lake.tpch.supplier",
}


class Minerva:
    """A server of its own for one measurement."""

    def __init__(self, program, resources, workers):
        self.folder = tempfile.TemporaryDirectory()
        self.data = pathlib.Path(self.folder.name)
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [program, "serve", "--resources", resources, "--data", self.data, "--http-port", "0", "--flight-port", "0", "--cluster-port", "0", "--workers", str(workers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = None
        for line in self.process.stdout:
            name, _, address = line.strip().partition(" ")
            if name == "flight":
                self.address = address
            if name == "ready":
                break
        self.start_seconds = time.perf_counter() - begin
        self.program = program
        self.keys = {}
        self.connections = []

    def resident_mib(self):
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def connect(self, user):
        if user not in self.keys:
            command = [self.program, "user", "apikey", "create", "-u", user, "-d", "1h", "--server", self.address, "--data", self.data]
            self.keys[user] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        self.connections.append(flight.connect(f"grpc://{self.address}", db_kwargs={"username": user, "password": self.keys[user]}, autocommit=True))
        cursor = self.connections[-1].cursor()
        self.connections.append(cursor)
        return cursor

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in reversed(self.connections):
            connection.close()
        self.process.terminate()
        self.process.wait()


class PlainDataFusion:
    """DataFusion alone in a process of its own; it tells its own time."""

    def __init__(self, tpch):
        program = cargo_bench_program("plain_datafusion")
        self.process = subprocess.Popen([program, tpch, ROOT / "tests/tpch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, number):
        print(number, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


class Timed:
    """An engine whose answers are waited for here."""

    def __init__(self, run):
        self.run = run

    def seconds(self, number):
        begin = time.perf_counter()
        self.run(QUERIES[number])
        return time.perf_counter() - begin


def sums_of_best(engines, runs):
    """Every engine answers a query before the next one is asked, so that the machine's noise falls on all of them."""
    best = {name: {} for name in engines}
    for number in QUERIES:
        for _ in range(runs):
            for name, engine in engines.items():
                taken = engine.seconds(number)
                best[name][number] = min(best[name].get(number, taken), taken)
    return best


def on_minerva(cursor, views):
    for name, body in views.items():
        cursor.execute(f"CREATE OR REPLACE VIEW {name} AS {body}")
        cursor.fetchall()

    def run(sql):
        cursor.execute(sql)
        cursor.fetch_arrow_table()

    return Timed(run)


def on_duckdb(lake):
    connection = duckdb.connect()
    connection.execute(f"SET threads = {os.cpu_count()}")
    for table in TABLES:
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{lake / 'tpch' / table}.parquet')")
    return Timed(lambda sql: connection.execute(sql).to_arrow_table())


def cargo_bench_program(name):
    command = ["cargo", "bench", "--quiet", "--bench", name, "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(message["executable"] for message in map(json.loads, lines) if message.get("executable") and message["target"]["name"] == name)


def output_of(program):
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def cargo_bench(name, *arguments):
    command = ["cargo", "bench", "--quiet", "--bench", name, "--", *map(str, arguments)]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip().splitlines()
    return lines[-1] if lines else ""


def point_query(cursor):
    times = []
    for _ in range(300):
        begin = time.perf_counter()
        cursor.execute("SELECT n_name FROM lake.tpch.nation WHERE n_nationkey = 7")
        cursor.fetchall()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[50:])


def first_line(program, runs=20):
    """Milliseconds from the start of `minerva sql` to its prompt, the median; there need be no server."""
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        process, terminal = pty.fork()
        if process == 0:
            os.execv(program, [str(program), "sql"])
        shown = b""
        while b"minerva> " not in shown:
            shown += os.read(terminal, 4096)
        found.append((time.perf_counter() - start) * 1000)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
    return statistics.median(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minerva", required=True, type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "minerva-bench")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--verbose", action="store_true", help="print the seconds of each query")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    lake = arguments.data / "lake"
    if not (lake / "tpch" / "supplier.parquet").exists():
        cargo_bench("generate", lake / "tpch", arguments.scale)
    resources = arguments.data / "resources"
    resources.mkdir(parents=True, exist_ok=True)
    (resources / "bench.yaml").write_text(RESOURCES.format(lake=lake))

    plain_views = {table: f"SELECT * FROM lake.tpch.{table}" for table in TABLES}
    with Minerva(arguments.minerva, resources, 1) as one, Minerva(arguments.minerva, resources, 2) as two:
        idle = one.resident_mib()
        start = one.start_seconds
        p50 = point_query(one.connect("plain"))
        engines = {
            "plain DataFusion 55": PlainDataFusion(lake / "tpch"),
            "DuckDB 1.5.5": on_duckdb(lake),
            "Minerva, one process": on_minerva(one.connect("plain"), plain_views),
            "Minerva, two workers of one process": on_minerva(two.connect("plain"), plain_views),
            "views by hand": on_minerva(one.connect("plain"), plain_views | BY_HAND),
            "two filters and three masks": on_minerva(one.connect("governed"), plain_views),
        }
        best = sums_of_best(engines, arguments.runs)
    if arguments.verbose:
        for number in QUERIES:
            print(number, *(f"{best[name][number]:.3f}" for name in engines))
    figures = {name: sum(seconds.values()) for name, seconds in best.items()}
    base = figures["plain DataFusion 55"]
    lines = [
        f"TPC-H scale {arguments.scale:g} on Parquet, sum of the 22 queries, best of {arguments.runs}, {os.cpu_count()} cores, {datetime.date.today()}.",
        "",
        "| what | seconds | ratio | goal |",
        "| --- | --- | --- | --- |",
    ]
    goals = {
        "Minerva, one process": (base, "at most 1.03 x plain DataFusion"),
        "Minerva, two workers of one process": (base, "at most 1.10 x plain DataFusion"),
        "two filters and three masks": (figures["views by hand"], "at most 1.05 x the views by hand"),
    }
    for name, seconds in figures.items():
        against, goal = goals.get(name, (base, ""))
        lines.append(f"| {name} | {seconds:.2f} | {seconds / against:.3f} | {goal} |")
    lines.append(f"| Minerva, one process, against DuckDB | | {figures['Minerva, one process'] / figures['DuckDB 1.5.5']:.3f} | later: below 1 |")
    lines += [
        "",
        "| what | figure | goal |",
        "| --- | --- | --- |",
        f"| `SELECT ... WHERE key = 7` over one kept connection, p50 | {p50:.2f} ms | at most 3 ms |",
        f"| start to `ready` | {start * 1000:.0f} ms | at most 300 ms |",
        f"| `minerva sql`, start to the prompt's first line, p50 | {first_line(arguments.minerva):.0f} ms | at most 50 ms |",
        f"| idle memory | {idle:.0f} MiB | at most 100 MiB |",
        f"| one decision among 1,000 policies | {cargo_bench('decide').split()[-1]} µs | at most 50 µs |",
        *(
            f"| authenticating a call among 1,000 users: {line.split()[0].replace('_', ' ')} | {line.split()[1]} µs | at most 100 µs |"
            for line in output_of(cargo_bench_program("authenticate")).splitlines()
        ),
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        header = "# Results\n\nMade by `make bench`; machines are noisy, so the ratios count. The newest run is kept.\n\n"
        (ROOT / "benches/RESULTS.md").write_text(header + text + "\n")


if __name__ == "__main__":
    main()

"""Reading TPC-H's lineitem from PostgreSQL into Arrow, against psql, DuckDB, connectorx and ADBC in the same run.

    cargo bench -p minerva-connectors --bench postgres --no-run
    python benches/postgres.py --bench PATH-OF-THE-PROGRAM [--scale 1] [--runs 5]

Starts a PostgreSQL of its own in a temporary folder (initdb and postgres in MINERVA_TEST_POSTGRES, on the path, or
where Debian puts them; not as root unless there is a user `postgres`). Needs duckdb==1.5.5, duckdb_extension_postgres_scanner==1.5.5,
connectorx==0.4.6, adbc-driver-postgresql and pyarrow. psql throws away what it gets from COPY in the binary format, so it is the least
that reading over one connection can take; `psql x 2` reads a half of the pages over each of two.
"""

import argparse
import glob
import os
import pathlib
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

DUCKDB = """
import sys, time, resource, pathlib, duckdb, duckdb_extension_postgres_scanner
extension, = pathlib.Path(duckdb_extension_postgres_scanner.__file__).parent.glob("extensions/*/*.duckdb_extension")
connection = duckdb.connect()
connection.execute("PRAGMA disable_progress_bar")
connection.execute(f"LOAD '{extension}'")
connection.execute(f"ATTACH '{sys.argv[1]}' AS pg (TYPE postgres, READ_ONLY)")
begun = time.monotonic()
rows = sum(batch.num_rows for batch in connection.execute(f"SELECT {sys.argv[2]} FROM pg.public.lineitem").to_arrow_reader(65536))
print(f"{time.monotonic() - begun:.3f} {rows} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}")
"""
ADBC = """
import sys, time, resource
from adbc_driver_postgresql import dbapi
begun = time.monotonic()
with dbapi.connect(sys.argv[1]) as connection, connection.cursor() as cursor:
    cursor.execute(f"SELECT {sys.argv[2]} FROM lineitem")
    rows = sum(batch.num_rows for batch in cursor.fetch_record_batch())
print(f"{time.monotonic() - begun:.3f} {rows} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}")
"""
CONNECTORX = """
import sys, time, resource, connectorx
begun = time.monotonic()
rows = connectorx.read_sql(sys.argv[1], f"SELECT {sys.argv[2]} FROM lineitem", return_type="arrow").num_rows
print(f"{time.monotonic() - begun:.3f} {rows} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}")
"""


def programs():
    folders = [os.environ.get("MINERVA_TEST_POSTGRES", ""), *os.environ["PATH"].split(os.pathsep)]
    folders += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    for folder in map(pathlib.Path, filter(None, folders)):
        if all((folder / name).is_file() for name in ("initdb", "pg_ctl", "postgres", "psql")):
            return folder
    sys.exit("no initdb was found: install PostgreSQL, or name its folder in MINERVA_TEST_POSTGRES")


class Server:
    def __init__(self, folder, **more):
        self.bin, self.data = programs(), folder / "data"
        self.user = {}
        if os.getuid() == 0:
            lent = pwd.getpwnam("postgres")
            os.chown(folder, lent.pw_uid, lent.pw_gid)
            self.user = {"user": lent.pw_uid, "group": lent.pw_gid, "extra_groups": []}
        self.call("initdb", "-D", self.data, "-U", "admin", "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = {"port": self.port, "listen_addresses": "'127.0.0.1'", "unix_socket_directories": "''", "fsync": "off"}
        settings |= {"wal_level": "minimal", "max_wal_senders": 0, "max_wal_size": "'4GB'", "shared_buffers": "'256MB'"} | more
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())
        self.call("pg_ctl", "-D", self.data, "-l", folder / "log", "-w", "start")

    def call(self, program, *arguments):
        command = [str(self.bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.data.parent, **self.user)

    def stop(self):
        self.call("pg_ctl", "-D", self.data, "-m", "fast", "stop")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--columns", default="*", help="such as l_orderkey,l_quantity,l_shipdate")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="minerva-bench-"))
    server = Server(folder)
    try:
        port = str(server.port)
        subprocess.run([options.bench, "load", port, "postgres", options.scale], check=True)
        columns = options.columns
        psql = [str(server.bin / "psql"), "-h", "127.0.0.1", "-p", port, "-U", "admin", "postgres", "-c"]
        pages = int(subprocess.run([*psql, "SELECT pg_relation_size('lineitem') / 8192", "-At"], check=True, capture_output=True).stdout)
        url = f"postgresql://admin@127.0.0.1:{port}/postgres?sslmode=disable"

        def timed(command):
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            return tuple(map(float, output.split()))

        def by_psql(*conditions):
            begun = time.monotonic()
            copies = [[*psql, f"COPY (SELECT {columns} FROM lineitem WHERE {where}) TO STDOUT (FORMAT BINARY)"] for where in conditions]
            readers = [subprocess.Popen(copy, stdout=subprocess.DEVNULL) for copy in copies]
            assert [reader.wait() for reader in readers] == [0] * len(readers)
            return (time.monotonic() - begun, 0, 0)

        def by_python(program, where):
            return lambda: timed([sys.executable, "-c", program, where, columns])

        readers = {
            "psql": lambda: by_psql("true"),
            "psql x 2": lambda: by_psql(f"ctid < '({pages // 2},0)'", f"ctid >= '({pages // 2},0)'"),
            "minerva": lambda: timed([options.bench, "read", port, "postgres", columns]),
            "duckdb": by_python(DUCKDB, f"host=127.0.0.1 port={port} user=admin dbname=postgres"),
            "adbc": by_python(ADBC, url),
            "connectorx": by_python(CONNECTORX, url),
        }
        results = {name: [] for name in readers}
        for run in range(options.runs + 1):
            # In turn, so that noise falls on all of them; the first round only warms up.
            for name, reader in readers.items():
                result = reader()
                if run > 0:
                    results[name].append(result)
        ours = statistics.median(seconds for seconds, _, _ in results["minerva"])
        for name, runs in results.items():
            seconds = statistics.median(seconds for seconds, _, _ in runs)
            _, rows, memory = runs[-1]
            print(f"{name:12} {seconds:7.2f} s   minerva / {name}: {ours / seconds:.2f}   {rows:.0f} rows   {memory:.0f} MiB")
    finally:
        server.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    # As the program does for itself (`cli/allocator.rs`).
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "10000")
    main()

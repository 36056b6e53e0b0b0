"""Reading TPC-H's lineitem from MariaDB into Arrow, against the server's own client, DuckDB and connectorx in the same run.

    cargo bench -p minerva-connectors --bench mysql --no-run
    python benches/mysql.py --bench PATH-OF-THE-PROGRAM [--scale 0.1] [--runs 5]

Starts a MariaDB of its own in a temporary folder (mariadbd, mariadb-install-db and mariadb on the path). Needs duckdb==1.5.5,
duckdb-extension-mysql-scanner==1.5.5, connectorx==0.4.6 and pyarrow. The client, which throws away what it gets in the text protocol, is about the least that
reading over one connection can take.
"""

import argparse
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TABLE = """CREATE TABLE lineitem (l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL, l_linenumber int NOT NULL,
    l_quantity decimal(15,2) NOT NULL, l_extendedprice decimal(15,2) NOT NULL, l_discount decimal(15,2) NOT NULL, l_tax decimal(15,2) NOT NULL,
    l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL, l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
    l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber)) CHARACTER SET utf8mb4"""

DUCKDB = """
import sys, time, resource, pathlib, duckdb, duckdb_extension_mysql_scanner
extension, = pathlib.Path(duckdb_extension_mysql_scanner.__file__).parent.glob("extensions/*/*.duckdb_extension")
connection = duckdb.connect()
connection.execute("PRAGMA disable_progress_bar")
connection.execute(f"LOAD '{extension}'")
connection.execute(f"ATTACH 'host=localhost user=root socket={sys.argv[1]} database=bench' AS my (TYPE mysql, READ_ONLY)")
begun = time.monotonic()
rows = sum(batch.num_rows for batch in connection.execute(f"SELECT {sys.argv[3]} FROM my.bench.lineitem").to_arrow_reader(65536))
print(f"{time.monotonic() - begun:.3f} {rows} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}")
"""
CONNECTORX = """
import sys, time, resource, connectorx
begun = time.monotonic()
rows = connectorx.read_sql(f"mysql://root@127.0.0.1:{sys.argv[2]}/bench", f"SELECT {sys.argv[3]} FROM lineitem", return_type="arrow", protocol="binary").num_rows
print(f"{time.monotonic() - begun:.3f} {rows} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}")
"""


def measured(command):
    output = subprocess.run(command, capture_output=True, text=True)
    if output.returncode:
        return None, output.stderr.strip().splitlines()[-1:]
    seconds, rows, memory = output.stdout.split()
    return float(seconds), (int(rows), int(memory))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--scale", default="0.1")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        as_root = ["--user=root"] if os.getuid() == 0 else []
        subprocess.run(["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", f"--datadir={root}/data", *as_root],
                       check=True, stdout=subprocess.DEVNULL)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen(["mariadbd", "--no-defaults", *as_root, f"--datadir={root}/data", f"--socket={root}/s", f"--pid-file={root}/pid", f"--port={port}",
                                   "--bind-address=127.0.0.1", "--local-infile", "--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=0"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            client = ["mariadb", "--no-defaults", f"--socket={root}/s", "--user=root", "--local-infile"]
            while subprocess.run([*client, "-e", "SELECT 1"], capture_output=True).returncode:
                time.sleep(0.1)
            subprocess.run([arguments.bench, "write", f"{root}/rows", arguments.scale], check=True)
            subprocess.run([*client, "-e", f"CREATE DATABASE bench; USE bench; {TABLE}; LOAD DATA LOCAL INFILE '{root}/rows' INTO TABLE lineitem "
                            "FIELDS TERMINATED BY '|'; ANALYZE TABLE lineitem"], check=True, stdout=subprocess.DEVNULL)
            for columns in ("*", "l_orderkey,l_extendedprice,l_shipdate"):
                def plain():
                    begun = time.monotonic()
                    subprocess.run([*client, "--quick", "--batch", "bench", "-e", f"SELECT {columns} FROM lineitem"], check=True, stdout=subprocess.DEVNULL)
                    return time.monotonic() - begun, None
                contestants = {
                    "mariadb --quick": plain,
                    "minerva": lambda: measured([arguments.bench, "read", f"{root}/s", columns]),
                    "duckdb": lambda: measured([sys.executable, "-c", DUCKDB, f"{root}/s", str(port), columns]),
                    "connectorx": lambda: measured([sys.executable, "-c", CONNECTORX, f"{root}/s", str(port), columns]),
                }
                seconds, notes = {name: [] for name in contestants}, {}
                for _ in range(arguments.runs):
                    for name, run in contestants.items():
                        took, notes[name] = run()
                        seconds[name] += [took] if took else []
                for name, took in seconds.items():
                    print(f"{columns}: {name}: {statistics.median(took):.3f} s" if took else f"{columns}: {name}: failed", notes[name] or "")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    # As the program does for itself (`cli/allocator.rs`).
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "10000")
    main()

"""Whether time tells what is denied from what does not exist.

    cargo build --release
    python benches/denied.py --minerva PATH-OF-THE-PROGRAM [--statements 1000] [--depots lite files pg]

One server on a SQLite file, a folder of Parquet files and a private PostgreSQL (see postgres.py). `jane` may see every table but one of each, and every
column but one. She runs statements that name something denied and statements that name something missing, in random turns over one connection.
Printed are the medians, their ratio, how often a denied one took longer than a missing one (0.5 is no difference), and the p-value of a permutation test
of the ranks: how often chance alone makes a difference as large. The goal is a ratio between 0.97 and 1.03. Needs pyarrow.
"""

import argparse
import pathlib
import random
import re
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

FARTHEST, TABLES, SHUFFLES = 0.03, 40, 2_000
MANIFESTS = """\
{name: lite, version: v2alpha, type: depot, depot: {type: SQLITE, acl: rw, sqlite: {path: ../lite.db}}}
---
{name: files, version: v2alpha, type: depot, depot: {type: FILE, file: {path: ../files, format: PARQUET}}}
---
{name: pg, version: v2alpha, type: depot, depot: {type: POSTGRESQL, acl: rw, postgresql: {host: 127.0.0.1, port: PORT, database: postgres, params: {sslmode: disable}}, secrets: [{name: pg-r}]}}
---
{name: pg-r, version: v1, type: instance-secret, instance-secret: {data: {username: admin, password: none}}}
---
{name: closed, version: v2alpha, type: depot, depot: {type: SQLITE, sqlite: {path: ../lite.db}}}
---
{name: jane, version: v1, type: user, user: {tags: [roles:id:analyst]}}
---
{name: readers, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:analyst]}, predicates: [select], objects: {paths: ["dataos://{lite,files,pg}:*/*"]}, allow: true}}}
---
{name: not-the-tenth, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:analyst]}, predicates: [select], objects: {paths: ["dataos://*:*/t0010"]}, allow: false}}}
---
{name: no-secrets, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:analyst]}, predicates: [select], objects: {paths: ["dataos://*:*/*/secret"]}, allow: false}}}
"""
# What is denied, and what is missing.
PAIRS = {
    "table": ("SELECT 1 FROM {place}.t0010", "SELECT 1 FROM {place}.t0090"),
    "its columns": ("SELECT secret, id FROM {place}.t0010 WHERE secret = 'a'", "SELECT secret, id FROM {place}.t0090 WHERE secret = 'a'"),
    "column": ("SELECT secret FROM {place}.t0001", "SELECT secrex FROM {place}.t0001"),
    "depot": ("SELECT 1 FROM closed.main.t0001", "SELECT 1 FROM nowher.main.t0001"),
    "table to change": ("DELETE FROM {place}.t0010", "DELETE FROM {place}.t0090"),
}


def field(number, payload):
    assert len(payload) < 128 or number == 2
    length, head = len(payload), bytearray([number << 3 | 2])
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes(head) + bytes([length]) + payload


def write(folder, server):
    create = [f"CREATE TABLE t{number:04} (id bigint, name text, secret text);" for number in range(TABLES)]
    with sqlite3.connect(folder / "lite.db") as database:
        for statement in create:
            database.execute(statement)
    psql = [server.bin / "psql", "-h", "127.0.0.1", "-p", str(server.port), "-U", "admin", "-q", "postgres"]
    subprocess.run(psql, input="\n".join(create), text=True, check=True)
    (folder / "files" / "main").mkdir(parents=True)
    table = pa.schema({"id": pa.int64(), "name": pa.string(), "secret": pa.string()}).empty_table()
    for number in range(TABLES):
        parquet.write_table(table, folder / "files" / "main" / f"t{number:04}.parquet")
    (folder / "resources").mkdir()
    (folder / "resources" / "all.yaml").write_text(MANIFESTS.replace("PORT", str(server.port)))


def compare(denied, missing):
    """How often a denied one took longer, and how often chance alone makes such a difference."""
    both = sorted([(taken, True) for taken in denied] + [(taken, False) for taken in missing])
    ranks = range(1, len(both) + 1)
    count, middle = len(denied), len(denied) * (len(both) + 1) / 2
    found = sum(rank for rank, (_, is_denied) in zip(ranks, both) if is_denied)
    longer = (found - count * (count + 1) / 2) / (count * len(missing))
    as_far = sum(abs(sum(random.sample(ranks, count)) - middle) >= abs(found - middle) for _ in range(SHUFFLES))
    return longer, (as_far + 1) / (SHUFFLES + 1)


def measure(address, key, statements, depots):
    failed = False
    with flight.FlightClient(f"grpc://{address}") as client:
        options = flight.FlightCallOptions(headers=[client.authenticate_basic_token("jane", key)])
        name = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"

        def ask(sql):
            command = field(1, name) + field(2, field(1, sql.encode()))
            begun = time.perf_counter()
            try:
                client.get_flight_info(flight.FlightDescriptor.for_command(command), options)
            except (flight.FlightError, pa.ArrowException, KeyError) as error:
                return (time.perf_counter() - begun) * 1e6, str(error)
            raise AssertionError(f"`{sql}` succeeded")

        for depot in depots:
            place = "pg.public" if depot == "pg" else f"{depot}.main"
            for what, pair in PAIRS.items():
                if what == "depot" and depot != depots[0]:
                    continue
                pair = [sql.format(place=place) for sql in pair]
                said = [re.sub(r"query \w+|t0010|t0090|secre[tx]|closed|nowher", "", ask(sql)[1]) for sql in pair]
                if said[0] != said[1]:
                    print(f"{depot:6} {what:16} is answered in other words: {said}")
                    failed = True
                for sql in pair * 20:
                    ask(sql)
                turns = [0, 1] * statements
                random.shuffle(turns)
                taken = [], []
                for turn in turns:
                    taken[turn].append(ask(pair[turn])[0])
                denied, missing = (statistics.median(times) for times in taken)
                longer, chance = compare(*taken)
                over = abs(denied / missing - 1) > FARTHEST
                failed |= over
                print(f"{depot:6} {what:16} denied {denied:7.0f} us   missing {missing:7.0f} us   ratio {denied / missing:.3f}   longer {longer:.3f}   p {chance:.3f}{'   OVER' if over else ''}", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minerva", required=True)
    parser.add_argument("--statements", type=int, default=1000)
    parser.add_argument("--depots", nargs="+", default=["lite", "files", "pg"])
    arguments = parser.parse_args()
    folder, database = (pathlib.Path(tempfile.mkdtemp(prefix="minerva-bench-")) for _ in range(2))
    server = postgres.Server(database)
    program = None
    try:
        write(folder, server)
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
        make = [arguments.minerva, "user", "apikey", "create", "-u", "jane", "-d", "1h", "--server", address, "--data", str(data)]
        jane = subprocess.run(make, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        return int(measure(address, jane, arguments.statements, arguments.depots))
    finally:
        if program is not None:
            program.terminate()
            program.wait()
        server.stop()
        for made in (folder, database):
            shutil.rmtree(made)


if __name__ == "__main__":
    sys.exit(main())

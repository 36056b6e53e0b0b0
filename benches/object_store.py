"""TPC-H's Parquet from an object store against the same files from a depot of type `file`, in one run; the figures are ratios.

    python benches/object_store.py --minerva PATH [--data FOLDER] [--scale 1] [--runs 3] [--delay MILLISECONDS] [--workers 1] [--verbose]

The store is `tests/python/object_server.py` on the loopback interface: it answers a small request in 0.2 ms and sends 1.5 GB/s, on the same
processors as Minerva. `--delay` makes each request wait first, as a store that is far away does. The depots are of one server and are asked
in turn: `store` with the default settings, of whose best run the parts that it read before are in memory, and `bare`, which keeps none. The first
run is that of servers just started, which have read nothing of the store but its lists and footers (when the views of the eight tables are made,
which is counted apart); the best of as many starts is told, and the files, too, are the best of those starts.
FOLDER/lake/tpch/*.parquet is made when it is not there. Needs what `make test` installs.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import run

RESOURCES = """
name: lake
version: v2alpha
type: depot
depot: {{type: FILE, file: {{path: {lake}, format: PARQUET}}}}
---
name: store
version: v2alpha
type: depot
depot:
  type: S3
  s3: {{bucket: lake, region: us-east-1, endpoint: "http://{address}", pathStyle: true, format: PARQUET}}
  secrets: [{{name: store-r}}]
---
name: bare
version: v2alpha
type: depot
depot:
  type: S3
  s3: {{bucket: lake, region: us-east-1, endpoint: "http://{address}", pathStyle: true, format: PARQUET, cache: 0}}
  secrets: [{{name: store-r}}]
---
name: store-r
version: v1
type: instance-secret
instance-secret: {{type: key-value-properties, acl: r, data: {{accesskeyid: bench, secretkey: bench}}}}
---
name: plain
version: v1
type: user
user: {{tags: [roles:id:reader]}}
---
name: readers
version: v1
type: policy
policy:
  access: {{subjects: {{tags: [[roles:id:reader]]}}, predicates: [select], objects: {{paths: ['dataos://lake:tpch/*', 'dataos://store:tpch/*', 'dataos://bare:tpch/*']}}, allow: true}}
"""


class Store:
    """The server of objects, and what it counted."""

    def __init__(self, folder):
        program = run.ROOT / "tests/python/object_server.py"
        self.process = subprocess.Popen([sys.executable, program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().split()[1]
        assert self.process.stdout.readline() == "ready\n"

    def steer(self, what, value=None):
        data = None if what == "stats" else json.dumps(value).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://{self.address}/-/{what}", data)) as answer:
            return json.load(answer)

    def count(self, call):
        """What a call returns, and the requests that it makes."""
        self.steer("reset")
        result = call()
        stats = self.steer("stats")
        return result, {"bytes": stats["bytes"], **stats["requests"]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


class Counted:
    """An engine whose requests are counted for each query; those of the last time are kept."""

    def __init__(self, engine, store):
        self.engine, self.store, self.asked = engine, store, {}

    def seconds(self, number):
        taken, self.asked[number] = self.store.count(lambda: self.engine.seconds(number))
        return taken


def first_runs(start, store, runs):
    """Each query's seconds from files and from a store of which nothing was read before, best of so many starts."""
    best = {"lake": {}, "first": {}}
    for _ in range(runs):
        with start() as minerva:
            lake, first = engine(minerva, "lake"), Counted(engine(minerva, "store"), store)
            run.sums_of_best({"lake": lake}, 1)
            for number in run.QUERIES:
                for name, timed in (("first", first), ("lake", lake)):
                    taken = timed.seconds(number)
                    best[name][number] = min(best[name].get(number, taken), taken)
    return best, summed(first.asked)


def engine(minerva, depot):
    return run.on_minerva(minerva.connect("plain"), {table: f"SELECT * FROM {depot}.tpch.{table}" for table in run.TABLES})


def summed(asked):
    return {key: sum(one[key] for one in asked.values()) for key in ("list", "head", "get", "bytes")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minerva", required=True, type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0, help="milliseconds that each request waits")
    parser.add_argument("--verbose", action="store_true", help="print each query")
    arguments = parser.parse_args()
    data = arguments.data or pathlib.Path(tempfile.gettempdir()) / ("minerva-bench" if arguments.scale == 1 else f"minerva-bench-{arguments.scale:g}")
    lake = data / "lake"
    if not (lake / "tpch" / "supplier.parquet").exists():
        run.cargo_bench("generate", lake / "tpch", arguments.scale)
    size = sum(path.stat().st_size for path in (lake / "tpch").iterdir())

    with tempfile.TemporaryDirectory() as resources, Store(data) as store:
        (pathlib.Path(resources) / "bench.yaml").write_text(RESOURCES.format(lake=lake, address=store.address))
        if arguments.delay:
            store.steer("faults", [{"do": "delay", "seconds": arguments.delay / 1000}])

        def start():
            return run.Minerva(arguments.minerva, resources, arguments.workers)

        first, first_asked = first_runs(start, store, arguments.runs)
        with start() as minerva:
            remote_engine, views = store.count(lambda: engine(minerva, "store"))
            stores = {"store": Counted(remote_engine, store), "bare": Counted(engine(minerva, "bare"), store)}
            best = run.sums_of_best({"lake": engine(minerva, "lake"), **stores}, arguments.runs)
    if arguments.verbose:
        print("query   file  store   bare  ratio   list  head   get    MB")
        for number in run.QUERIES:
            file, remote, bare = (best[name][number] for name in ("lake", "store", "bare"))
            asked = stores["bare"].asked[number]
            counts = f"{asked['list']:6} {asked['head']:5} {asked['get']:5} {asked['bytes'] / 1e6:5.0f}"
            print(f"{number:5} {file:6.3f} {remote:6.3f} {bare:6.3f} {bare / file:6.2f} {counts}")
    file = sum(best["lake"].values())
    delay = f", {arguments.delay:g} ms for each request" if arguments.delay else ""
    print(
        f"TPC-H scale {arguments.scale:g} ({size / 1e6:.0f} MB), sum of the 22 queries, best of {arguments.runs}, "
        f"{arguments.workers} worker{'s' if arguments.workers > 1 else ''} in one process, {os.cpu_count()} cores{delay}, {datetime.date.today()}.\n"
    )
    print("| what | seconds | ratio | lists | heads | gets | MB |\n| --- | --- | --- | --- | --- | --- | --- |")
    print(f"| depot `file` | {file:.2f} | 1 | | | | |")
    rows = [("depot `s3`", "store"), ("the same with `cache: 0`", "bare")]
    rows = [(what, f"{sum(best[name].values()):.2f} | {sum(best[name].values()) / file:.3f}", summed(stores[name].asked)) for what, name in rows]
    first_file, first_store = (sum(first[name].values()) for name in ("lake", "first"))
    rows.append((f"the first run of depot `s3` (`file` in the same runs: {first_file:.2f})", f"{first_store:.2f} | {first_store / first_file:.3f}", first_asked))
    for name, seconds, asked in [*rows, ("its eight views", "|", views)]:
        print(f"| {name} | {seconds} | {asked['list']} | {asked['head']} | {asked['get']} | {asked['bytes'] / 1e6:.1f} |")


main()

"""Reads results that are long, wide, or have large cells, with the default options of the drivers, while the server's memory stays small.

Usage: python large_results.py HOST PORT USER KEY PID

PID is the process that answers; its depot `big` is TPC-H of scale 1. Prints `ok NAME` for each check and leaves with 1 at the first that fails.
"""

import json
import re
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.flight as flight
import shared
from shared import URI, check, connect, raises
from with_flight import field, query, signed_in

PID = sys.argv[5]
ROWS = 6_001_215
#: Some 400 MB for the client.
LONG = "SELECT l_orderkey, l_partkey, l_extendedprice, l_shipdate, l_comment FROM big.tpch.lineitem"
#: What the server may take beyond what it had, while it sends that.
MOST_KIB = 160 << 10
CELL = 10_000_000

# The checks of other scripts are run elsewhere.
shared.CHECKS.clear()


def memory(name):
    return int(re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{PID}/status").read_text(), re.MULTILINE)[1])


def forget_the_peak():
    Path(f"/proc/{PID}/clear_refs").write_text("5")


def read(connection, options, sql):
    info = connection.get_flight_info(query(sql), options)
    return connection.do_get(info.endpoints[0].ticket, options)


@check
def a_long_result_does_not_gather_in_the_server():
    with flight.FlightClient(URI) as connection, connect() as other, other.cursor() as cursor:
        options = signed_in(connection)

        def pause():
            cursor.execute("SELECT sum(o_totalprice) FROM big.tpch.orders")
            assert cursor.fetchone()[0] > 0

        # What is there once and for all is there before.
        pause()
        assert read(connection, options, LONG + " LIMIT 100000").read_all().num_rows == 100_000
        forget_the_peak()
        before = memory("VmRSS")
        # An ordinary reader, and one that stands still again and again for as long as another statement takes.
        for pauses in (0, 3):
            reader, rows, largest, batches = read(connection, options, LONG), 0, 0, 0
            for chunk in reader:
                rows, largest, batches = rows + chunk.data.num_rows, max(largest, chunk.data.nbytes), batches + 1
                if batches in (1, 50, 100)[:pauses]:
                    pause()
            assert rows == ROWS, rows
            assert largest <= 2 << 20, largest
        more = memory("VmHWM") - before
        assert more < MOST_KIB, f"{more} KiB more than the {before} KiB of before"
        print(f"   {ROWS} rows twice, {batches} messages, at most {more} KiB beyond {before} KiB", flush=True)


@check
def adbc_reads_a_long_result_in_pieces():
    with connect() as connection, connection.cursor() as cursor:
        forget_the_peak()
        before = memory("VmRSS")
        cursor.execute(LONG)
        assert sum(batch.num_rows for batch in cursor.fetch_record_batch()) == ROWS
        more = memory("VmHWM") - before
        assert more < MOST_KIB, f"{more} KiB more than the {before} KiB of before"


@check
def cells_may_be_larger_than_a_usual_message():
    sql = f"SELECT column1 AS n, repeat('x', {CELL} + column1) AS t FROM (VALUES {', '.join(f'({n})' for n in range(20))})"
    with connect() as adbc, adbc.cursor() as cursor, flight.FlightClient(URI) as connection:
        cursor.execute(sql)
        for table in (cursor.fetch_arrow_table(), read(connection, signed_in(connection), sql).read_all()):
            lengths = {row["n"]: len(row["t"]) for row in table.to_pylist()}
            assert lengths == {n: CELL + n for n in range(20)}, lengths


@check
def cells_of_workers_may_be_large_too():
    sql = f"SELECT l_linenumber AS n, rpad(l_comment, {CELL}, 'x') AS t FROM big.tpch.lineitem WHERE l_orderkey <= 4"
    with connect() as adbc, adbc.cursor() as cursor, flight.FlightClient(URI) as connection:
        cursor.execute(sql)
        tables = (cursor.fetch_arrow_table(), read(connection, signed_in(connection), sql).read_all())
        for table in tables:
            assert table.num_rows == 14 and set(compute.utf8_length(table.column("t")).to_pylist()) == {CELL}, table.num_rows


@check
def wide_rows_go_out_a_few_at_a_time():
    sql = "SELECT l_orderkey, repeat(l_comment, 100) AS t FROM big.tpch.lineitem LIMIT 50000"
    with flight.FlightClient(URI, generic_options=[("grpc.max_receive_message_length", 4 << 20)]) as connection:
        sizes = [(chunk.data.num_rows, chunk.data.nbytes) for chunk in read(connection, signed_in(connection), sql)]
        assert sum(rows for rows, _ in sizes) == 50_000
        assert max(size for _, size in sizes) <= 2 << 20, max(sizes)
        assert len(sizes) < 200, f"{len(sizes)} messages"


@check
def values_that_are_bound_may_be_large_too():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT length($1) AS n, $1 AS t FROM big.tpch.region LIMIT 1", ("y" * CELL,))
        table = cursor.fetch_arrow_table()
        assert table.column("n").to_pylist() == [CELL] and len(table.column("t")[0].as_py()) == CELL
        # The value goes to workers inside the plan.
        cursor.execute("SELECT count(*) AS n FROM big.tpch.lineitem WHERE l_comment < $1 AND l_orderkey < 100", ("z" * CELL,))
        assert cursor.fetchone()[0] == 105


@check
def progress_tells_of_rows_that_workers_read():
    endless = "SELECT count(*) AS n FROM big.tpch.lineitem a JOIN big.tpch.orders b ON a.l_partkey > b.o_custkey + b.o_orderkey"
    with flight.FlightClient(URI) as connection:
        options = signed_in(connection)

        def act(kind, body):
            return list(connection.do_action(flight.Action(kind, body), options))[0].body.to_pybytes()

        info = connection.get_flight_info(query(endless), options)
        # Cancelling ends it.
        reading = threading.Thread(target=lambda: raises(pa.ArrowException, connection.do_get(info.endpoints[0].ticket, options).read_chunk))
        reading.start()
        until, seen = time.monotonic() + 60, {}
        while seen.get("input_rows", 0) < 1_500_000 and time.monotonic() < until:
            before, seen = seen, json.loads(act("minerva.query.progress", json.dumps({"query_id": info.app_metadata.decode()}).encode()))
            assert seen["input_rows"] >= before.get("input_rows", 0), (before, seen)
        act("CancelFlightInfo", field(1, info.serialize()))
        reading.join()
        assert seen["state"] == "RUNNING" and seen["input_rows"] >= 1_500_000, seen


if __name__ == "__main__":
    sys.exit(shared.run_checks())

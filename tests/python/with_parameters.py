"""Checks that a value of every Arrow type can be bound to a parameter: it arrives as it was sent, or one clear error names it."""

import datetime as dt
from decimal import Decimal

import adbc_driver_manager
import pyarrow as pa
from shared import check, connect

DAY, MOMENT, TIME = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12, 34, 56, 789000), dt.time(12, 34, 56, 789000)
UTC = dt.timezone.utc
ZONE = "Europe/Berlin"

#: What is bound, what SQL calls its type, and a literal that must equal it.
SCALARS = [
    *((pa.scalar(-7, kind), sql, "-7") for kind, sql in ((pa.int8(), "Int8"), (pa.int16(), "Int16"), (pa.int32(), "Int32"), (pa.int64(), "Int64"))),
    *((pa.scalar(200, kind), sql, "200") for kind, sql in ((pa.uint8(), "UInt8"), (pa.uint16(), "UInt16"), (pa.uint32(), "UInt32"), (pa.uint64(), "UInt64"))),
    (pa.scalar(2**64 - 1, pa.uint64()), "UInt64", "18446744073709551615"),
    (pa.scalar(-(2**63), pa.int64()), "Int64", "CAST('-9223372036854775808' AS BIGINT)"),
    (pa.scalar(1.5, pa.float16()), "Float16", "1.5e0"),
    (pa.scalar(1.5, pa.float32()), "Float32", "1.5e0"),
    (pa.scalar(-2.25, pa.float64()), "Float64", "-2.25e0"),
    (pa.scalar(Decimal("12.34"), pa.decimal32(9, 2)), "Decimal32(9, 2)", "12.34"),
    (pa.scalar(Decimal("12.34"), pa.decimal64(18, 2)), "Decimal64(18, 2)", "12.34"),
    (pa.scalar(Decimal("-12345678901234567890.12"), pa.decimal128(38, 2)), "Decimal128(38, 2)", "CAST('-12345678901234567890.12' AS DECIMAL(38, 2))"),
    (pa.scalar(Decimal("12.34"), pa.decimal256(50, 2)), "Decimal256(50, 2)", "12.34"),
    (pa.scalar(True), "Boolean", "true"),
    (pa.scalar("héllo ''", pa.string()), "Utf8", "'héllo '''''"),
    (pa.scalar("large", pa.large_string()), "LargeUtf8", "'large'"),
    (pa.scalar("a view of more than twelve bytes", pa.string_view()), "Utf8View", "'a view of more than twelve bytes'"),
    (pa.scalar("", pa.string()), "Utf8", "''"),
    (pa.scalar(b"\x00\xff", pa.binary()), "Binary", "X'00ff'"),
    (pa.scalar(b"\x00\xff", pa.large_binary()), "LargeBinary", "X'00ff'"),
    (pa.scalar(b"\x00\xff", pa.binary_view()), "BinaryView", "X'00ff'"),
    (pa.scalar(b"\x00\xff", pa.binary(2)), "FixedSizeBinary(2)", "X'00ff'"),
    (pa.scalar(DAY, pa.date32()), "Date32", "DATE '2024-02-29'"),
    (pa.scalar(DAY, pa.date64()), "Date64", "DATE '2024-02-29'"),
    (pa.scalar(dt.time(12, 34, 56), pa.time32("s")), "Time32(s)", "TIME '12:34:56'"),
    (pa.scalar(TIME, pa.time32("ms")), "Time32(ms)", "TIME '12:34:56.789'"),
    (pa.scalar(TIME, pa.time64("us")), "Time64(µs)", "TIME '12:34:56.789'"),
    (pa.scalar(TIME, pa.time64("ns")), "Time64(ns)", "TIME '12:34:56.789'"),
    *((pa.scalar(MOMENT.replace(microsecond=0), pa.timestamp(unit)), f"Timestamp({sql})", "TIMESTAMP '2024-02-29 12:34:56'") for unit, sql in (("s", "s"), ("ms", "ms"), ("us", "µs"), ("ns", "ns"))),
    (pa.scalar(MOMENT, pa.timestamp("us")), "Timestamp(µs)", "TIMESTAMP '2024-02-29 12:34:56.789'"),
    *((pa.scalar(MOMENT.replace(tzinfo=UTC), pa.timestamp(unit, zone)), f'Timestamp({sql}, "{zone}")', "arrow_cast('2024-02-29 12:34:56.789Z', 'Timestamp(ms, \"UTC\")')")
      for zone in ("UTC", ZONE, "+02:00") for unit, sql in (("ms", "ms"), ("us", "µs"), ("ns", "ns"))),
    (pa.scalar((1, 2, 3_000_000_000), pa.month_day_nano_interval()), "Interval(MonthDayNano)", "INTERVAL '1 month 2 days 3 seconds'"),
    *((pa.scalar(dt.timedelta(hours=36), pa.duration(unit)), f"Duration({sql})", f"arrow_cast({36 * 3600 * factor}, 'Duration({sql})')")
      for unit, sql, factor in (("s", "s", 1), ("ms", "ms", 10**3), ("us", "µs", 10**6), ("ns", "ns", 10**9))),
]

#: What is bound, and the column that comes back.
NESTED = [
    (pa.array([[1, 2, None]], pa.list_(pa.int64())), [1, 2, None]),
    (pa.array([["a", "b"]], pa.large_list(pa.string())), ["a", "b"]),
    (pa.array([[1, 2]], pa.list_(pa.int32(), 2)), [1, 2]),
    (pa.array([{"a": 1, "b": "x"}]), {"a": 1, "b": "x"}),
    (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [("k", 1)]),
    (pa.array(["low"]).dictionary_encode(), "low"),
    (pa.array([7], pa.int64()).dictionary_encode(), 7),
    (pa.RunEndEncodedArray.from_arrays([1], ["run"]), "run"),
]


def run(sql, array):
    with connect() as connection, connection.cursor() as cursor:
        statement = cursor.adbc_statement
        statement.set_sql_query(sql)
        statement.prepare()
        statement.bind(pa.record_batch([array], names=["0"]))
        stream, _ = statement.execute_query()
        return pa.RecordBatchReader._import_from_c(stream.address).read_all()


def one(scalar):
    return pa.array([scalar.as_py()], scalar.type) if not pa.types.is_interval(scalar.type) else pa.array([scalar], scalar.type)


@check
def parameters_of_each_type_arrive():
    for scalar, name, literal in SCALARS:
        try:
            table = run(f"SELECT arrow_typeof($1) AS type, $1 IS NULL AS none, $1 AS value", one(scalar))
            row = table.drop(["value"]).to_pylist()[0]
            assert row == {"type": name, "none": False}, row
            same = run(f"SELECT $1 = {literal} AS same", one(scalar)).column("same").to_pylist()
            assert same == [True], same
            value = table.column("value")[0]
            assert value.cast(scalar.type).equals(scalar) if value.type != scalar.type else value.equals(scalar), value
        except Exception as error:
            raise AssertionError(f"{scalar!r} of {scalar.type}: {error}") from error


@check
def parameters_of_each_type_may_be_null():
    for scalar, name, _ in SCALARS:
        table = run("SELECT arrow_typeof($1) AS type, $1 IS NULL AS none, $1 AS value", pa.nulls(1, scalar.type))
        assert table.column("none").to_pylist() == [True] and table.column("value").to_pylist() == [None], (scalar.type, table)
    table = run("SELECT $1 IS NULL AS none, coalesce($1, 5) AS value", pa.nulls(1))
    assert table.to_pylist() == [{"none": True, "value": 5}], table


@check
def parameters_may_be_nested_or_encoded():
    for array, expected in NESTED:
        try:
            table = run("SELECT $1 AS value", array)
            assert table.column("value").to_pylist() == [expected], table
        except Exception as error:
            raise AssertionError(f"{array.type}: {error}") from error
    table = run("SELECT x FROM (VALUES (1), (2), (3)) AS t(x) WHERE x = ANY ($1)", pa.array([[1, 3]], pa.list_(pa.int64())))
    assert sorted(table.column("x").to_pylist()) == [1, 3], table


@check
def parameters_are_compared_as_the_column_is():
    day = "SELECT count(*) AS n FROM (VALUES (DATE '2024-02-29'), (DATE '2024-03-01')) AS t(x) WHERE x = $1"
    moment = "SELECT count(*) AS n FROM (VALUES (TIMESTAMP '2024-02-29 12:34:56'), (TIMESTAMP '2024-03-01 00:00:00')) AS t(x) WHERE x = $1"
    number = "SELECT count(*) AS n FROM (VALUES (CAST(1.50 AS DECIMAL(9, 2))), (CAST(2 AS DECIMAL(9, 2)))) AS t(x) WHERE x = $1"
    small = "SELECT count(*) AS n FROM (VALUES (CAST(1 AS SMALLINT)), (CAST(2 AS SMALLINT))) AS t(x) WHERE x = $1"
    text = "SELECT count(*) AS n FROM (VALUES ('1'), ('b')) AS t(x) WHERE x = $1"
    for sql, array in (
        (day, pa.array([DAY])), (day, pa.array([DAY], pa.date64())), (day, pa.array(["2024-02-29"])), (day, pa.array([dt.datetime(2024, 2, 29)])),
        (moment, pa.array([MOMENT.replace(microsecond=0)])), (moment, pa.array(["2024-02-29 12:34:56"])), (moment, pa.array([MOMENT.replace(microsecond=0)], pa.timestamp("s"))),
        (number, pa.array([Decimal("1.5")])), (number, pa.array([1.5])), (number, pa.array([2])), (number, pa.array([Decimal("1.500000")])),
        (small, pa.array([2**40 - 2**40 + 1])), (small, pa.array([1], pa.uint64())), (small, pa.array([1.0])),
        (text, pa.array(["b"])), (text, pa.array(["b"], pa.large_string())), (text, pa.array(["b"]).dictionary_encode()),
    ):
        found = run(sql, array).column("n").to_pylist()
        assert found == [1], (sql, array.type, found)
    # No value of a wider type is squeezed into the column's.
    assert run(small, pa.array([2**40 + 1])).column("n").to_pylist() == [0]
    assert run(small, pa.array([1.5])).column("n").to_pylist() == [0]


@check
def parameters_that_cannot_be_used_are_named():
    for array, name in (
        (pa.array([[1]], pa.list_(pa.int64())), "List"),
        (pa.array([{"a": 1}]), "Struct"),
    ):
        try:
            run("SELECT x + $1 AS y FROM (VALUES (1)) AS t(x)", array)
            raise AssertionError(f"{array.type} was added to a number")
        except adbc_driver_manager.Error as error:
            assert f"parameter `$1` is of type `{name}" in str(error), error
    try:
        run("SELECT x FROM (VALUES (CAST(1 AS INT))) AS t(x) WHERE x = $1", pa.array(["one"]))
        raise AssertionError("a text was compared with a number")
    except adbc_driver_manager.Error as error:
        assert "one" in str(error), error
    # A time is as fine as what it is compared with, unless that would cut it.
    seconds = "SELECT count(*) AS n FROM (VALUES (arrow_cast('12:34:56', 'Time32(s)'))) AS t(x) WHERE x = $1"
    assert run(seconds, pa.array([dt.time(12, 34, 56)], pa.time64("ns"))).column("n").to_pylist() == [1]
    try:
        run(seconds, pa.array([TIME], pa.time64("us")))
        raise AssertionError("digits of a time were dropped")
    except adbc_driver_manager.Error as error:
        assert "parameter `$1`" in str(error) and "Time64(µs)" in str(error) and "Time32(s)" in str(error), error

"""A small governed data set, built twice, and a client that runs statements on it.

Usage: python governed.py FOLDER a|b|c [PORT]

Writes manifests to FOLDER/resources and data to FOLDER/sources. The twins `a` and `b` differ only in what the user `analyst` must not know:
the rows that filters hide are replaced, multiplied, moved and left out, and masked cells of visible rows are changed in ways that
their masks erase. `c` is such a twin as well, with several times as many rows, all of the others hidden: estimates, which plans are chosen
by, are rounded, and cannot be told apart in `a` and `b` only. Hidden rows and masked cells hold canaries: texts with `kanari` in them, whole numbers and decimals of one range,
and the year 1787.

The depots `files` and `lite` hold the governed tables, `plainfiles` and `plainlite` the same tables as the analyst should see them,
computed here by hand and open. With the port of a PostgreSQL there are `pg` and `plainpg` as well, over its databases `twin_a` (`twin_b`, ...)
and `plain`, which the scripts FOLDER/sources/pg.sql and plainpg.sql fill.
"""

import csv
import hashlib
import hmac
import json
import os
import random
import re
import shutil
import sqlite3
import sys
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import adbc_driver_manager
import pyarrow as pa
import pyarrow.parquet as parquet
from adbc_driver_flightsql import dbapi

KEY = b"a key that no plan may hold"
#: Every numeric canary is one of the 2^24 numbers that begin here; they share their upper bytes and their first digits.
FIRST = 0x02A05CB7 << 24
#: The year of no visible row.
YEAR = 1787

VISIBLE_PEOPLE, VISIBLE_ORDERS, VISIBLE_EVENTS, VISIBLE_PROFILES = 70, 150, 60, 50


class Dice:
    """Two sources of chance: what both twins share, and what differs."""

    def __init__(self, twin, name):
        self.shared = random.Random(f"shared {name}")
        self.own = random.Random(f"{twin} {name}")

    def canary(self):
        return FIRST + self.own.randrange(1 << 24)

    def word(self, length=5):
        return "".join(self.own.choice("bcdfghjklm") for _ in range(length))

    def text(self):
        return "kanari " + self.word(self.own.randrange(3, 24))

    def moment(self, year, month=None):
        month = month or self.own.randrange(1, 13)
        seconds = self.own.randrange(1, 28 * 86_400)
        return datetime(year, month, 1) + timedelta(seconds=seconds)


def hidden_rows(twin, a, b):
    return {"a": a, "b": b, "c": 12 * b}[twin]


def interleave(dice, visible, hidden):
    """Hidden rows among the visible ones, whose order stays."""
    places = sorted(dice.own.randrange(len(visible) + 1) for _ in hidden)
    rows, at = [], 0
    for place, row in zip(places, hidden):
        rows.extend((True, shown) for shown in visible[at:place])
        at = place
        rows.append((False, row))
    return rows + [(True, shown) for shown in visible[at:]]


# ---- The tables, raw ---------------------------------------------------------------------------------------------------


def people(twin):
    """(visible, row) in the order of the file."""
    dice = Dice(twin, "people")
    shared, own = dice.shared, dice.own
    visible = []
    for number in range(1, VISIBLE_PEOPLE + 1):
        low = number % 5 == 0
        bucket = shared.choice([-100, 0, 1000, 2000])
        salary = bucket + own.randrange(0, 100) if low else dice.canary()
        visible.append({
            "id": number,
            "name": None if number % 13 == 0 else shared.choice("ABCD") + shared.choice("ae") + "kanari" + dice.word(4),
            "email": None if number % 11 == 0 else f"kanari.{number % 30}@example.test",
            "phone": f"+49-{number % 7}-" + ("kanari" if own.random() < 0.5 else dice.word(6)),
            "ssn": None if number % 17 == 0 else dice.text(),
            "salary": None if number % 19 == 0 else salary,
            "born": date(1950 + number % 40, own.randrange(2, 13), own.randrange(2, 29)),
            "seen": dice.moment(2023, shared.randrange(1, 13)),
            "level": shared.choice([None, 0, 1, 2, 3]),
            "active": shared.choice([None, True, False]),
            "vip": None if number % 9 == 0 else own.random() < 0.5,
            "region": "EU",
            "risk": shared.randrange(1, 101),
            "rating": None if number % 23 == 0 else own.randrange(0, 400) / 4,
            "badge": f"kanari-badge-{number % 40}",
            "nick": shared.choice("xyz") + "kanari" + dice.word(own.randrange(1, 9)),
            "secret": None if own.random() < 0.4 else dice.text(),
            "card": None if number % 12 == 0 else dice.text(),
            "city": shared.choice(["Oslo", "Rome", "Lima", "it's, \"quoted\""]),
        })
    hidden = []
    for index in range(hidden_rows(twin, 40, 57)):
        row = {
            "id": own.choice([dice.canary(), own.randrange(1, VISIBLE_PEOPLE + 1)]),
            "name": dice.text(), "email": own.choice([dice.text(), f"kanari.{own.randrange(30)}@example.test"]), "phone": dice.text(),
            "ssn": dice.text(), "salary": dice.canary(), "born": date(YEAR, own.randrange(1, 13), 5), "seen": dice.moment(YEAR),
            "level": own.randrange(0, 4), "active": own.choice([None, True, False]), "vip": True, "region": "EU",
            "risk": own.randrange(1, 101), "rating": float(dice.canary()), "badge": f"kanari-badge-{own.randrange(60)}",
            "nick": dice.text(), "secret": dice.text(), "card": dice.text(), "city": own.choice(["Oslo", dice.text()]),
        }
        row.update(own.choice([
            {"region": own.choice(["UK", "NO", "kanariland"])}, {"region": None}, {"level": own.randrange(4, 99)}, {"level": dice.canary()},
            {"risk": 0}, {"risk": None}, {"risk": own.randrange(101, 999)}, {"risk": dice.canary()},
        ] if twin == "a" else [{"region": "kanariland"}, {"level": 4 + index}, {"risk": 101 + index}, {"risk": dice.canary()}]))
        hidden.append(row)
    return interleave(dice, visible, hidden)


def orders(twin):
    dice = Dice(twin, "orders")
    shared, own = dice.shared, dice.own
    visible = []
    for number in range(1, VISIBLE_ORDERS + 1):
        low = number % 4 == 0
        amount = Decimal(shared.choice([0, 100])) + Decimal(own.randrange(0, 9999)) / 100 if low else Decimal(dice.canary()) / 100
        visible.append({
            "order_id": number,
            "person_id": None if number % 14 == 0 else shared.randrange(1, 91),
            "buyer": None if number % 10 == 0 else f"kanari-badge-{shared.randrange(50)}",
            "amount": None if number % 21 == 0 else amount,
            "price": Decimal(shared.randrange(0, 50_026)) / 100,
            "qty": shared.randrange(1, 10),
            "placed": dice.moment(2024, shared.randrange(1, 13)),
            "due": None if number % 15 == 0 else date(2025, own.randrange(1, 13), own.randrange(2, 29)),
            "paid": None if number % 16 == 0 else own.random() < 0.5,
            "status": shared.choice(["new", "paid", "sent"]),
            "comment": None if number % 18 == 0 else "kanari" + dice.word(5) + shared.choice("pq") + shared.choice("rs"),
            "region": shared.choice(["EU", "UK", "DK"]),
            "channel": shared.choice(["web", "web-app", "website"]),
            "gone": None,
        })
    hidden = []
    for index in range(hidden_rows(twin, 60, 55)):
        row = {
            "order_id": own.choice([dice.canary(), own.randrange(1, VISIBLE_ORDERS)]), "person_id": own.choice([dice.canary(), own.randrange(1, 91)]),
            "buyer": f"kanari-badge-{own.randrange(60)}", "amount": Decimal(dice.canary()) / 100, "price": Decimal(own.randrange(0, 50_000)) / 100,
            "qty": own.randrange(1, 10), "placed": dice.moment(YEAR), "due": date(YEAR, 3, 1 + index % 28), "paid": True,
            "status": own.choice(["new", "paid"]), "comment": dice.text(), "region": own.choice(["EU", "UK"]), "channel": "web", "gone": None,
        }
        row.update(own.choice([
            {"status": own.choice(["kanari-status", None])}, {"region": own.choice(["kanariland", "NO", None])}, {"qty": own.choice([0, -3, None])},
            {"channel": own.choice(["shop", "kanari"])}, {"price": Decimal("500.26") + index}, {"gone": date(YEAR, 1, 2)},
        ] if twin == "a" else [{"status": None}, {"qty": -index}, {"region": "kanariland"}, {"channel": dice.text()}]))
        hidden.append(row)
    return interleave(dice, visible, hidden)


def events(twin):
    dice = Dice(twin, "events")
    shared, own = dice.shared, dice.own
    visible = []
    for number in range(1, VISIBLE_EVENTS + 1):
        tags = [shared.choice("ab") + "-kanari" + dice.word(3) for _ in range(number % 4)]
        visible.append({
            "event_id": number,
            "person_id": shared.randrange(1, 80),
            "kind": shared.choice(["click", "view", "buy"]),
            "device": 1000 + number % 8,
            "payload": None if number % 20 == 0 else {
                "ip": None if number % 7 == 0 else dice.text(),
                "size": shared.randrange(0, 5000),
                "geo": {"city": shared.choice("RST") + "kanari" + dice.word(4), "lat": shared.randrange(0, 360) / 4},
            },
            "tags": None if number % 13 == 0 else tags,
            "steps": [{"code": step, "note": dice.text() if own.random() < 0.7 else None} for step in range(number % 3)],
            "region": "EU" if number % 3 else "UK",
        })
    hidden = []
    for index in range(hidden_rows(twin, 30, 66)):
        row = {
            "event_id": own.choice([dice.canary(), own.randrange(1, 60)]), "person_id": own.choice([dice.canary(), own.randrange(1, 80)]),
            "kind": own.choice(["click", "kanari-kind"]), "device": dice.canary(),
            "payload": {"ip": dice.text(), "size": own.randrange(0, 4000), "geo": {"city": dice.text(), "lat": float(dice.canary())}},
            "tags": [dice.text() for _ in range(own.randrange(4))], "steps": [{"code": own.randrange(9), "note": dice.text()}], "region": "EU",
        }
        row.update(own.choice([{"region": "kanariland"}, {"region": "NO"}, {"kind": "kanari"}] if twin == "a" else [{"region": "kanariland"}, {"kind": "kanari"}]))
        if own.random() < 0.3 and row["kind"] != "kanari" and row["region"] == "EU":
            row["payload"]["size"] = dice.canary()
        hidden.append(row)
    return interleave(dice, visible, hidden)


def profiles(twin):
    dice = Dice(twin, "profiles")
    shared, own = dice.shared, dice.own
    visible = []
    for number in range(1, VISIBLE_PROFILES + 1):
        visible.append({
            "person_id": number,
            "address": {"city": dice.text(), "country": shared.choice(["DE", "NO", "IT"]), "zip": shared.randrange(1000, 9999)},
            "labels": None if number % 9 == 0 else [(key, dice.text() if (number + len(key)) % 5 else None) for key in ["kind", "note", "x"][: number % 4]],
            "phones": None if number % 8 == 0 else ["kanari" + dice.word(3) + shared.choice("12") + shared.choice("34") for _ in range(number % 3)],
            "blob": None if own.random() < 0.3 else dice.text().encode(),
            "score": shared.randrange(0, 100),
        })
    hidden = []
    for _ in range(hidden_rows(twin, 20, 70)):
        hidden.append({
            "person_id": own.choice([dice.canary(), own.randrange(1, 50)]), "address": {"city": dice.text(), "country": "ZZ", "zip": dice.canary()},
            "labels": [("kanari", dice.text())], "phones": [dice.text()], "blob": dice.text().encode(), "score": own.randrange(100),
        })
    return interleave(dice, visible, hidden)


def notes(twin):
    dice = Dice(twin, "notes")
    visible = [{"owner": "analyst", "person_id": number * 2, "body": f"note {number}"} for number in range(1, 31)]
    hidden = [{"owner": dice.own.choice(["steward", "outsider", "kanari"]), "person_id": dice.own.choice([dice.canary(), number]), "body": dice.text()}
              for number in range(hidden_rows(twin, 25, 33))]
    return interleave(dice, visible, hidden)


def regions(_twin):
    rows = [("EU", "European Union", 1), ("UK", "United Kingdom", 2), ("DK", "Denmark", 3), ("NO", "Norway", None), ("US", "United States", 5)]
    return [(True, {"region": region, "title": title, "rank": rank}) for region, title, rank in rows]


def payroll(twin):
    dice = Dice(twin, "payroll")
    return [(False, {"id": number, "wage": dice.canary(), "why": dice.text()}) for number in range(hidden_rows(twin, 10, 15))]


TABLES = {"people": people, "orders": orders, "events": events, "profiles": profiles, "notes": notes, "regions": regions, "payroll": payroll}

# ---- What the analyst should see ---------------------------------------------------------------------------------------


def unless_null(mask):
    return lambda value: None if value is None else mask(value)


def keep(first, last):
    def mask(value):
        length = len(value)
        if length <= first + last:
            return "*" * length
        return value[:first] + "*" * (length - first - last) + value[length - last:]

    return mask


def bucket(*edges):
    return lambda value: max((edge for edge in edges if edge <= value), default=None)


def keyed(prefix, length):
    return lambda value: hmac.new(KEY, prefix + value.encode(), hashlib.sha256).hexdigest()[:length]


def at_month(value):
    return value.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


TOKEN = keyed(b"minerva tokenize\0text", 32)

#: Each mask by hand. `card` is masked by chance, and a number's token has no oracle here: both are left out of the plain tables.
MASKS = {
    "people": {
        "name": keep(2, 0), "email": keyed(b"", 64), "phone": lambda value: re.sub("[a-z]{6}$", "xxxxxx", value), "ssn": lambda _: "hidden",
        "salary": bucket(0, 1000, 2000, 700_000_000_000_000), "born": lambda value: value.replace(month=1, day=1), "seen": at_month,
        "vip": lambda _: False, "rating": lambda _: 1.5, "badge": TOKEN, "nick": lambda value: value[:1] + ".", "secret": lambda _: None,
    },
    "orders": {
        "buyer": TOKEN, "amount": bucket(Decimal("0.00"), Decimal("100.00"), Decimal("1000.00")), "placed": at_month,
        "due": lambda _: date(1970, 1, 1), "paid": lambda _: False, "comment": keep(0, 2),
    },
    "events": {
        "payload": lambda value: {
            "ip": None if value["ip"] is None else "REDACTED", "size": value["size"],
            "geo": {"city": keep(1, 0)(value["geo"]["city"]), "lat": value["geo"]["lat"]},
        },
        "tags": lambda value: [re.sub("-.*", "-x", tag) for tag in value],
        "steps": lambda value: [{"code": step["code"], "note": None} for step in value],
    },
    "profiles": {
        "address": lambda value: {**value, "city": "REDACTED"},
        "labels": lambda value: [(key, None if label is None else "label") for key, label in value],
        "phones": lambda value: [keep(0, 2)(phone) for phone in value],
        "blob": lambda _: None,
    },
}
#: Columns that have no plain counterpart.
UNPREDICTABLE = {"people": ["card"], "events": ["device"]}


def plain(name):
    """The rows of a table as the analyst should see them."""
    masks, rows = MASKS.get(name, {}), []
    for visible, row in TABLES[name]("a"):
        if visible:
            rows.append({
                column: unless_null(masks[column])(value) if column in masks else value
                for column, value in row.items() if column not in UNPREDICTABLE.get(name, [])
            })
    return rows


# ---- Files -------------------------------------------------------------------------------------------------------------

TEXT, INT, DOUBLE, BOOL, DAY, MOMENT = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us")
TYPES = {
    "people": {
        "id": INT, "name": TEXT, "email": TEXT, "phone": TEXT, "ssn": TEXT, "salary": INT, "born": DAY, "seen": pa.timestamp("ns"), "level": INT,
        "active": BOOL, "vip": BOOL, "region": TEXT, "risk": INT, "rating": DOUBLE, "badge": TEXT, "nick": TEXT, "secret": TEXT, "card": TEXT, "city": TEXT,
    },
    "orders": {
        "order_id": INT, "person_id": INT, "buyer": TEXT, "amount": pa.decimal128(18, 2), "price": pa.decimal128(9, 2), "qty": pa.int64(),
        "placed": MOMENT, "due": DAY, "paid": BOOL, "status": TEXT, "comment": TEXT, "region": TEXT, "channel": TEXT, "gone": DAY,
    },
    "events": {
        "event_id": INT, "person_id": INT, "kind": TEXT, "device": INT,
        "payload": pa.struct({"geo": pa.struct({"city": TEXT, "lat": DOUBLE}), "ip": TEXT, "size": INT}),
        "tags": pa.list_(TEXT), "steps": pa.list_(pa.struct({"code": INT, "note": TEXT})), "region": TEXT,
    },
    "profiles": {
        "person_id": INT, "address": pa.struct({"city": TEXT, "country": TEXT, "zip": INT}), "labels": pa.map_(TEXT, TEXT),
        "phones": pa.list_(TEXT), "blob": pa.binary(), "score": INT,
    },
    "notes": {"owner": TEXT, "person_id": INT, "body": TEXT},
    "regions": {"region": TEXT, "title": TEXT, "rank": INT},
    "payroll": {"id": INT, "wage": INT, "why": TEXT},
}
SQLITE_TYPES = {TEXT: "TEXT", INT: "BIGINT", DOUBLE: "DOUBLE", BOOL: "BOOLEAN", DAY: "DATE", MOMENT: "TIMESTAMP", pa.timestamp("ns"): "TIMESTAMP",
                pa.decimal128(18, 2): "DECIMAL(18,2)", pa.decimal128(9, 2): "DECIMAL(9,2)"}
POSTGRES_TYPES = SQLITE_TYPES | {DOUBLE: "DOUBLE PRECISION"}
#: The tables of the databases; the others are nested.
FLAT = ["people", "orders", "notes", "regions", "payroll"]


def as_arrow(name, rows, note=None):
    columns = {column: kind for column, kind in TYPES[name].items() if not rows or column in rows[0]}
    schema = pa.schema([pa.field(column, kind, metadata=note) for column, kind in columns.items()], metadata=note)
    return pa.Table.from_pylist(rows, schema=schema)


class Sparse:
    """A file in which a large piece of zeros is a hole."""

    HOLE = bytes(16 << 20)

    def __init__(self, path):
        self.file, self.closed = path.open("wb"), False

    def write(self, data):
        if len(data) == len(self.HOLE) and bytes(data) == self.HOLE:
            self.file.seek(len(data), 1)
        else:
            self.file.write(data)
        return len(data)

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()
        self.closed = True


def write_parquet(path, name, rows, note=None, group=64, large=False):
    """Writes a file; a large one has a hole between its halves, so that it is worth several tasks on any machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = as_arrow(name, rows, note)
    sink = pa.PythonFile(Sparse(path), mode="w")
    with parquet.ParquetWriter(sink, table.schema, version="2.6") as writer:
        half = len(rows) // 2 if large else len(rows)
        writer.write_table(table.slice(0, half), row_group_size=group)
        for _ in range(2 * (os.cpu_count() or 1) + 2 if large else 0):
            sink.write(Sparse.HOLE)
        if large:
            writer.write_table(table.slice(half), row_group_size=group)
    sink.close()


def as_text(value):
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat()
        case _:
            return str(value)


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([as_text(value) for value in row.values()] for row in rows)


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_sqlite(path, tables):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)

    def stored(value):
        match value:
            case Decimal() | date():
                return str(value)
            case bool():
                return int(value)
            case _:
                return value

    with sqlite3.connect(path) as database:
        for name, rows in tables.items():
            columns = [f"{column} {SQLITE_TYPES[TYPES[name][column]]}" for column in rows[0]]
            database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            marks = ", ".join("?" * len(columns))
            database.executemany(f"INSERT INTO {name} VALUES ({marks})", [[stored(value) for value in row.values()] for row in rows])
    database.close()


def write_postgres(path, tables):
    """A script for psql. The tables are analysed, so that the planner has estimates that count hidden rows too."""

    def stored(value):
        return r"\N" if value is None else as_text(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for name, rows in tables.items():
            columns = ", ".join(f"{column} {POSTGRES_TYPES[TYPES[name][column]]}" for column in rows[0])
            file.write(f"CREATE TABLE {name} ({columns});\nCOPY {name} FROM STDIN;\n")
            file.writelines("\t".join(map(stored, row.values())) + "\n" for row in rows)
            file.write("\\.\n")
        file.write("CREATE INDEX ON people (id);\nCREATE INDEX ON people (region);\nCREATE INDEX ON orders (person_id);\nANALYZE;\n")


def raw(name, twin):
    return [row for _, row in TABLES[name](twin)]


def write_data(folder, twin):
    note = {"kanari": "kanari in a note"}
    shop = folder / "files" / "shop"
    for name in ("people", "notes", "regions", "payroll"):
        write_csv(shop / f"{name}.csv", raw(name, twin))
    write_csv(folder / "files" / "vault" / "gold.csv", raw("payroll", twin))

    # The names of files are below the barrier too. The first two files hold the same visible rows in both twins; the third hides.
    rows, shown, halves = orders(twin), 0, ([], [])
    for visible, row in rows:
        shown += visible
        halves[shown > VISIBLE_ORDERS // 2].append(row)
    for index, half in enumerate(halves):
        write_parquet(shop / "orders" / f"kanari-{index}.parquet", "orders", half, note, large=index == 0)
    if twin != "a":
        write_parquet(shop / "orders" / "kanari-2.parquet", "orders", [row for visible, row in rows if not visible][:50], note)
    write_parquet(shop / "profiles.parquet", "profiles", raw("profiles", twin), note)

    for region in sorted({row["region"] for _, row in events(twin)}):
        inside = [{key: value for key, value in row.items() if key != "region"} for _, row in events(twin) if row["region"] == region]
        write_lines(shop / "events" / f"region={region}" / "kanari.jsonl", inside)

    for name in ("people", "orders", "events", "profiles", "notes", "regions"):
        write_parquet(folder / "plainfiles" / "shop" / f"{name}.parquet", name, plain(name))
    write_sqlite(folder / "lite.db", {name: raw(name, twin) for name in FLAT})
    write_sqlite(folder / "plainlite.db", {name: plain(name) for name in FLAT if name != "payroll"})
    write_postgres(folder / "pg.sql", {name: raw(name, twin) for name in FLAT})
    write_postgres(folder / "plainpg.sql", {name: plain(name) for name in FLAT if name != "payroll"})


# ---- Manifests ---------------------------------------------------------------------------------------------------------

DEPOTS = """\
{name: files, version: v2alpha, type: depot, depot: {type: FILE, file: {path: ../sources/files}}}
---
{name: plainfiles, version: v2alpha, type: depot, depot: {type: FILE, file: {path: ../sources/plainfiles}}}
---
{name: lite, version: v2alpha, type: depot, depot: {type: SQLITE, sqlite: {path: ../sources/lite.db}}}
---
{name: plainlite, version: v2alpha, type: depot, depot: {type: SQLITE, sqlite: {path: ../sources/plainlite.db}}}
"""

#: The password is one more thing that nobody may see.
POSTGRES = """\
{name: pg, version: v2alpha, type: depot, depot: {type: POSTGRESQL, postgresql: {host: 127.0.0.1, port: PORT, database: twin_TWIN, params: {sslmode: disable}}, secrets: [{name: pg-r}]}}
---
{name: plainpg, version: v2alpha, type: depot, depot: {type: POSTGRESQL, postgresql: {host: 127.0.0.1, port: PORT, database: plain, params: {sslmode: disable}}, secrets: [{name: pg-r}]}}
---
{name: pg-r, version: v1, type: instance-secret, instance-secret: {type: key-value, acl: r, data: {username: reader, password: kanari password}}}
---
{name: people-postgres, version: v1, type: dataset, dataset: {address: "dataos://pg:public/people", columns: [{name: city, tags: [Pii.City]}]}}
"""

USERS = """\
{name: analyst, version: v1, type: user, user: {tags: [roles:id:user, roles:id:analyst], attributes: {region: EU, clearance: "4"}}}
---
{name: steward, version: v1, type: user, user: {tags: [roles:id:user, roles:id:steward]}}
---
{name: outsider, version: v1, type: user, user: {tags: [roles:id:user]}}
---
{name: masking, version: v1, type: instance-secret, instance-secret: {type: key-value, acl: r, data: {key: a key that no plan may hold}}}
"""

ACCESS = """\
name: shop-readers
version: v1
type: policy
policy:
  access:
    subjects: {tags: [roles:id:analyst, roles:id:steward]}
    predicates: [select]
    objects: {paths: ["dataos://*files:shop/*", "dataos://*lite:main/*", "dataos://*pg:public/*"]}
    allow: true
---
name: no-payroll
version: v1
type: policy
policy:
  access:
    subjects: {tags: [roles:id:analyst]}
    predicates: [select]
    objects: {paths: ["dataos://*:*/payroll"]}
    allow: false
---
name: vault-keepers
version: v1
type: policy
policy:
  access:
    subjects: {tags: [roles:id:steward]}
    predicates: [select]
    objects: {paths: ["dataos://files:vault/*"]}
    allow: true
"""

FILTERS = """\
- name: own-region
  version: v1
  type: policy
  policy: {data: {type: filter, depot: "{files,lite,pg}", dataset: people, selector: {user: {tags: [roles:id:analyst]}},
    filters: [{column: region, operator: equals, value: "${user.attributes.region}"}]}}
- name: careful-people
  version: v1
  type: policy
  policy: {data: {type: filter, depot: "{files,lite,pg}", dataset: people, selector: {user: {tags: [roles:id:analyst]}},
    filters: [{expression: "risk <> 0 AND 100 / risk >= 1 AND coalesce(level, 0) < CAST('${user.attributes.clearance}' AS BIGINT)"}]}}
- name: known-orders
  version: v1
  type: policy
  policy: {data: {type: filter, depot: "{files,lite,pg}", dataset: orders, selector: {user: {tags: [roles:id:analyst]}}, filters: [
    {column: status, operator: in, value: [new, paid, sent]}, {column: region, operator: not_in, value: [kanariland, "NO"]},
    {column: qty, operator: greater_than, value: 0}, {column: channel, operator: like, value: "web%"},
    {column: price, operator: less_than_equals, value: 500.25}, {column: gone, operator: is_null}]}}
- name: near-events
  version: v1
  type: policy
  policy: {data: {type: filter, depot: files, dataset: events, selector: {user: {tags: [roles:id:analyst]}}, filters: [
    {column: region, operator: in, value: [EU, UK]}, {column: kind, operator: not_equals, value: kanari},
    {expression: "kind <> 'kanari-kind' AND coalesce(payload['size'], 0) < 5000"}]}}
- name: real-countries
  version: v1
  type: policy
  policy: {data: {type: filter, depot: files, dataset: profiles, selector: {user: {tags: [roles:id:analyst]}},
    filters: [{column: address.country, operator: not_equals, value: ZZ}]}}
- name: own-notes
  version: v1
  type: policy
  policy: {data: {type: filter, depot: "{files,lite,pg}", dataset: notes, selector: {user: {tags: [roles:id:analyst]}},
    filters: [{column: owner, operator: equals, value: "${user.id}"}]}}
"""

#: Policy name, tables, columns, mask.
MASK_POLICIES = [
    ("part-of-name", "people", ["name"], "{operator: partial, partial: {keep_first: 2}}"),
    ("hashed-email", "people", ["email"], "{operator: hash, hash: {algo: sha256, keySecret: masking}}"),
    ("no-last-digits", "people", ["phone"], "{operator: regex_replace, regex_replace: {pattern: '[a-z]{6}$$', replacement: xxxxxx}}"),
    ("redacted-ssn", "people", ["ssn"], "{operator: redact, redact: {replacement: hidden}}"),
    ("bucketed-salary", "people", ["salary"], "{operator: bucket_number, bucket_number: {buckets: [0, 1000, 2000, 700000000000000]}}"),
    ("year-of-birth", "people", ["born"], "{operator: bucket_date, bucket_date: {precision: year}}"),
    ("month-only", "{people,orders}", ["seen", "placed"], "{operator: bucket_date, bucket_date: {precision: month}}"),
    ("redacted", "{people,orders}", ["vip", "due", "paid"], "{operator: redact}"),
    ("constant-rating", "people", ["rating"], "{operator: constant, constant: {value: 1.5}}"),
    ("tokens", "{people,orders,events}", ["badge", "buyer", "device"], "{operator: tokenize, tokenize: {keySecret: masking}}"),
    ("initials", "people", ["nick"], "{operator: expression, expression: {sql: \"concat(left(value, 1), '.')\"}}"),
    ("nothing", "{people,profiles}", ["secret", "blob"], "{operator: nullify}"),
    ("random-card", "people", ["card"], "{operator: rand_pattern, rand_pattern: {pattern: '####-##'}}"),
    ("bucketed-amount", "orders", ["amount"], "{operator: bucket_number, bucket_number: {buckets: [0, 100, 1000]}}"),
    ("end-of-comment", "{orders,profiles}", ["comment", "phones.element"], "{operator: partial, partial: {keep_last: 2}}"),
    ("redacted-place", "{events,profiles}", ["payload.ip", "address.city"], "{operator: redact}"),
    ("part-of-city", "events", ["payload.geo.city"], "{operator: partial, partial: {keep_first: 1}}"),
    ("short-tags", "events", ["tags.element"], "{operator: regex_replace, regex_replace: {pattern: '-.*', replacement: '-x'}}"),
    ("no-step-notes", "events", ["steps.element.note"], "{operator: nullify}"),
    ("labels", "profiles", ["labels.value"], "{operator: constant, constant: {value: label}}"),
]
MASK = """\
- name: %s
  version: v1
  type: policy
  policy: {data: {type: mask, priority: 50, depot: "{files,lite,pg}", dataset: "%s",
    selector: {user: {tags: [roles:id:analyst]}, column: {names: [%s]}}, mask: %s}}
"""
#: A mask for everybody by tag, and an exemption from it.
CITY = """\
- {name: people-file, version: v1, type: dataset, dataset: {address: "dataos://files:shop/people", columns: [{name: city, tags: [Pii.City]}]}}
- {name: people-database, version: v1, type: dataset, dataset: {address: "dataos://lite:main/people", columns: [{name: city, tags: [Pii.City]}]}}
- name: no-cities
  version: v1
  type: policy
  policy: {data: {type: mask, priority: 60, selector: {user: {tags: [roles:id:analyst]}, column: {tags: [Pii.City]}}, mask: {operator: redact}}}
- name: but-analysts
  version: v1
  type: policy
  policy: {data: {type: mask, priority: 40, selector: {user: {tags: [roles:id:analyst]}, column: {tags: [Pii.City]}}, mask: {operator: pass_through}}}
"""


def write_manifests(folder, twin, port=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "depots.yaml").write_text(DEPOTS)
    if port is not None:
        (folder / "postgres.yaml").write_text(POSTGRES.replace("PORT", port).replace("TWIN", twin))
    (folder / "users.yaml").write_text(USERS)
    (folder / "access.yaml").write_text(ACCESS)
    (folder / "filters.yaml").write_text(FILTERS)
    (folder / "masks.yaml").write_text("".join(MASK % (name, tables, ", ".join(columns), mask) for name, tables, columns, mask in MASK_POLICIES))
    (folder / "cities.yaml").write_text(CITY)


def build(folder, twin, port=None):
    shutil.rmtree(folder / "sources" / "files", ignore_errors=True)
    write_data(folder / "sources", twin)
    write_manifests(folder / "resources", twin, port)


# ---- A client ----------------------------------------------------------------------------------------------------------

def rows_of(table):
    """The rows as tuples, columns of one name apart. No moment of the data set is finer than a microsecond, and Python's are not."""
    columns = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        columns.append(column.to_pylist())
    return list(zip(*columns))


QUERY_ID = re.compile(r"\b\d{8}_\d{6}_\d{5}_[0-9a-z]+\b")


class Client:
    """A session of a user: runs statements and tells all there is to see."""

    def __init__(self, address, user, key):
        self.connection = dbapi.connect(f"grpc://{address}", db_kwargs={"username": user, "password": key}, autocommit=True)

    def run(self, sql, parameters=None):
        """(table, None), or (None, (code, text))."""
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetch_arrow_table(), None
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
            details = {}
            for name, value in getattr(error, "details", None) or []:
                name = name.decode() if isinstance(name, bytes) else name
                # The moment of the answer is no part of it.
                if name == "date":
                    continue
                details[name] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            text = QUERY_ID.sub("QUERY", " | ".join([str(error), *(f"{name}={value}" for name, value in sorted(details.items()))]))
            return None, (details.get("minerva-error-code", ""), text)

    def close(self):
        self.connection.close()


if __name__ == "__main__":
    build(Path(sys.argv[1]), *sys.argv[2:])

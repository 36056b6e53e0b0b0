"""Looks for canaries in every byte that a server sends to those who must not know them.

Usage: python canary.py ADDRESS FOLDER ANALYST_KEY OUTSIDER_KEY STEWARD_KEY

The server serves FOLDER, which governed.py wrote. Each statement goes through a proxy that keeps what comes back, so that rows, errors,
plans, schemas, handles and headers of every message are looked at as bytes and, decoded, as text. Prints one line for each part, and
leaves with 1 when a canary is found, when a hidden name answers otherwise than one that does not exist, or when a door that should be
closed is open.
"""

import re
import socket
import struct
import sys
import threading

import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight

import governed
from governed import Client

ADDRESS, FOLDER, ANALYST_KEY, OUTSIDER_KEY, STEWARD_KEY = sys.argv[1:6]
ORDERS = governed.orders("a")
DEPOTS = {"files": ["people", "orders", "events", "profiles", "notes"], "lite": ["people", "orders", "notes"], "pg": ["people", "orders", "notes"]}
PREFIX = {"files": "files.shop", "lite": "lite.main", "pg": "pg.public"}
failures = []


def fail(text):
    failures.append(text)
    print(f"FAILED {text}", flush=True)


# ---- The scanner -------------------------------------------------------------------------------------------------------


def numbers_as_bytes():
    """The bytes that every numeric canary shares: as a whole number or decimal, and as a double."""
    whole = struct.pack("<q", governed.FIRST)[3:]
    low, high = (struct.pack("<d", float(number)) for number in (governed.FIRST, governed.FIRST + (1 << 24) - 1))
    assert low[4:] == high[4:]
    fourth = b"".join(re.escape(bytes([byte])) for byte in range(low[3], high[3] + 1))
    return [re.escape(whole), b"[" + fourth + b"]" + re.escape(low[4:])]


def digits():
    low, high = str(governed.FIRST), str(governed.FIRST + (1 << 24) - 1)
    shared = "".join(a for a, b in zip(low, high) if a == b)[:7]
    assert low.startswith(shared) and high.startswith(shared)
    return [shared.encode(), f"{shared[0]}[.]{shared[1:]}".encode()]


IN_BYTES = re.compile(b"|".join([b"kanari", b"KANARI", b"Kanari", governed.KEY, *numbers_as_bytes(), *digits()]), re.DOTALL)
IN_TEXT = re.compile("|".join(["kanari", governed.KEY.decode(), f"\\b{governed.YEAR}-[0-9][0-9]-", *(part.decode() for part in digits())]), re.IGNORECASE)


#: What lies below the barriers: policies' functions and texts, files, raw scans.
BELOW = re.compile(r"PolicyBarrier|minerva_mask|minerva_row_filter|user\.attributes|\bScanExec: dataos://\w+:\w+/(?!regions)|sources/files/shop/(?!regions)")


def scan(data):
    """What is found in bytes or text, with its surroundings."""
    pattern = IN_BYTES if isinstance(data, bytes) else IN_TEXT
    found = pattern.search(data)
    return None if found is None else repr(data[max(0, found.start() - 40) : found.end() + 40])


class Proxy:
    """Passes connections on to the server and keeps what the server says."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.lock, self.streams, self.total = threading.Lock(), {}, 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, True), daemon=True).start()

    def pump(self, source, sink, keep):
        try:
            while data := source.recv(1 << 16):
                if keep:
                    with self.lock:
                        self.streams.setdefault(source, bytearray()).extend(data)
                        self.total += len(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def take(self):
        """What came since the last time; a few bytes are kept for what lies across the border."""
        with self.lock:
            taken = [bytes(stream) for stream in self.streams.values()]
            for stream in self.streams.values():
                del stream[:-64]
            return taken


PROXY = Proxy(ADDRESS)


def look(what, *seen):
    """Scans what a call showed, and every byte that came with it."""
    taken = PROXY.take()
    for data in [*(text if isinstance(text, bytes) else str(text) for text in seen), *taken]:
        found = scan(data)
        if found:
            where = "in the bytes" if isinstance(data, bytes) else "in what the client shows"
            fail(f"a canary came out {where}: {what}\n    {found}")
            # What was seen is forgotten, so that the next statement is not blamed for it.
            with PROXY.lock:
                for stream in PROXY.streams.values():
                    stream.clear()
            return False
    return True


def ask(client, sql, parameters=None):
    table, error = client.run(sql, parameters)
    seen = [governed.rows_of(table), table.schema.to_string(show_field_metadata=True), table.schema.metadata] if table is not None else [error]
    look(sql, *seen)
    # Who names what lies below is told that name back.
    below = None if BELOW.search(sql) or "system.runtime" in sql else BELOW.search("\n".join(map(str, seen)))
    if below:
        fail(f"`{below.group()}` of below the barrier is shown by {sql}\n    {str(seen)[:600]}")
    return table, error


# ---- Statements --------------------------------------------------------------------------------------------------------

#: For one table of any columns: `{t}`, its first column `{c}` and another `{d}`.
SHAPES = """
SELECT * FROM {t}
SELECT x.* FROM {t} AS x
TABLE {t}
SELECT x FROM (SELECT * FROM {t}) AS x
SELECT DISTINCT {d} FROM {t}
SELECT count(*), count({c}), count(DISTINCT {d}), min({c}), max({c}) FROM {t}
SELECT min({d}), max({d}), first_value({d}), last_value({d}), approx_distinct({c}) FROM {t}
SELECT array_agg({d}) FROM {t}
SELECT {d}, count(*) FROM {t} GROUP BY {d} ORDER BY 2 DESC, 1
SELECT {c}, {d}, count(*) FROM {t} GROUP BY GROUPING SETS (({c}), ({d}), ({c}, {d}), ())
SELECT {c}, {d}, count(*) FROM {t} GROUP BY CUBE ({c}, {d})
SELECT {d}, count(*) FROM {t} GROUP BY {d} HAVING max({c}) > 10
SELECT a.{c}, b.{d} FROM {t} a JOIN {t} b ON a.{c} = b.{c}
SELECT a.{c}, b.{d} FROM {t} a LEFT JOIN {t} b ON a.{c} = b.{c} AND a.{d} IS DISTINCT FROM b.{d}
SELECT a.*, b.* FROM {t} a FULL JOIN {t} b ON a.{c} = b.{c} + 1
SELECT a.*, b.* FROM {t} a RIGHT JOIN {t} b ON a.{c} < b.{c} AND a.{c} > 60
SELECT * FROM {t} NATURAL JOIN {t} AS again
SELECT * FROM {t} a CROSS JOIN (VALUES (1), (2)) AS v(n)
WITH w AS (SELECT * FROM {t}) SELECT * FROM w
WITH w AS (SELECT * FROM {t}), z AS (SELECT * FROM w UNION ALL SELECT * FROM w) SELECT * FROM z
WITH RECURSIVE r AS (SELECT {c} AS n, 0 AS depth FROM {t} UNION ALL SELECT n, depth + 1 FROM r WHERE depth < 2) SELECT * FROM r
SELECT * FROM {t} a WHERE EXISTS (SELECT 1 FROM {t} b WHERE b.{c} = a.{c})
SELECT * FROM {t} a WHERE NOT EXISTS (SELECT 1 FROM {t} b WHERE b.{c} = a.{c} + 1)
SELECT * FROM {t} WHERE {c} IN (SELECT {c} FROM {t})
SELECT * FROM {t} WHERE {c} NOT IN (SELECT {c} + 1 FROM {t} WHERE {c} IS NOT NULL)
SELECT {c}, (SELECT max(b.{d}) FROM {t} b) FROM {t} a
SELECT {c}, (SELECT count(*) FROM {t} b WHERE b.{c} = a.{c}) FROM {t} a
SELECT {c} FROM {t} UNION SELECT {c} + 1 FROM {t}
SELECT * FROM {t} EXCEPT SELECT * FROM {t} WHERE {c} < 10
SELECT * FROM {t} INTERSECT SELECT * FROM {t}
SELECT * FROM {t} UNION ALL SELECT * FROM {t}
SELECT {c}, row_number() OVER (ORDER BY {c}), lag({d}) OVER (ORDER BY {c}), first_value({d}) OVER (ORDER BY {c} DESC) FROM {t}
SELECT {c}, max({d}) OVER (), count(*) OVER (PARTITION BY {d}) FROM {t}
SELECT {c}, nth_value({d}, 2) OVER (ORDER BY {c} ROWS BETWEEN 3 PRECEDING AND 3 FOLLOWING) FROM {t}
SELECT * FROM {t} a, LATERAL (SELECT max(b.{d}) AS m FROM {t} b WHERE b.{c} = a.{c}) l
SELECT * FROM {t} ORDER BY {c} DESC NULLS LAST LIMIT 3
SELECT * FROM {t} ORDER BY {d} DESC LIMIT 3 OFFSET 1
SELECT * FROM {t} ORDER BY {d}, {c} LIMIT 5
SELECT * FROM {t} LIMIT 5
SELECT * FROM {t} LIMIT 0
SELECT * FROM {t} WHERE {c} > 1000
SELECT * FROM {t} WHERE {c} > 700000000000000
SELECT * FROM {t} WHERE CAST({d} AS VARCHAR) LIKE '%n_ri%'
SELECT * FROM {t} WHERE CAST({d} AS VARCHAR) ~ 'k.n.r'
SELECT count(*) FROM {t} WHERE upper(CAST({d} AS VARCHAR)) LIKE '%K_NARI%'
SELECT CASE WHEN {c} > 60 THEN {d} ELSE NULL END FROM {t}
SELECT CASE WHEN {c} > 60 THEN 1 / ({c} - {c}) ELSE 0 END FROM {t}
SELECT 1 / ({c} - 3) FROM {t}
SELECT {c} FROM {t} WHERE 1 / ({c} - 3) > 0
SELECT {c} FROM {t} WHERE {c} > 60 AND 1 / ({c} - 3) > 0
SELECT {c} % 0 FROM {t}
SELECT CAST({d} AS BIGINT) FROM {t}
SELECT CAST({d} AS DATE) FROM {t}
SELECT CAST({d} AS BOOLEAN) FROM {t}
SELECT CAST({d} AS TIMESTAMP) FROM {t}
SELECT CAST({c} AS SMALLINT) FROM {t}
SELECT arrow_cast({c}, 'Int8') FROM {t}
SELECT TRY_CAST({d} AS BIGINT) FROM {t}
SELECT * FROM {t} WHERE CAST({d} AS BIGINT) = 1
SELECT * FROM {t} WHERE CAST({c} AS TINYINT) >= 0
SELECT max(CAST({d} AS INT)) FROM {t}
SELECT a.{c} FROM {t} a LEFT JOIN {t} b ON a.{c} = b.{c} AND CAST(b.{d} AS INT) > 0
SELECT a.{c} FROM {t} a JOIN {t} b ON 1 / (b.{c} - 3) = a.{c}
SELECT {c} * 9223372036854775807 FROM {t}
SELECT {c} + 9223372036854775807 FROM {t}
SELECT regexp_replace(CAST({d} AS VARCHAR), '(', '') FROM {t}
SELECT regexp_like(CAST({d} AS VARCHAR), CAST({d} AS VARCHAR)) FROM {t}
SELECT regexp_replace(CAST({d} AS VARCHAR), '.', 'x', 'no such flag') FROM {t}
SELECT * FROM {t} WHERE CAST({d} AS VARCHAR) SIMILAR TO CAST({d} AS VARCHAR) || '['
SELECT substr(CAST({d} AS VARCHAR), 1, {c} - 5) FROM {t}
SELECT repeat(CAST({d} AS VARCHAR), CAST({c} % 3 AS INT)) FROM {t}
SELECT to_timestamp(CAST({d} AS VARCHAR)) FROM {t}
SELECT to_date(CAST({d} AS VARCHAR)) FROM {t}
SELECT decode(CAST({d} AS VARCHAR), 'hex') FROM {t}
SELECT digest(CAST({d} AS VARCHAR), 'no such digest') FROM {t}
SELECT chr({c}) FROM {t}
SELECT arrow_typeof({d}), arrow_typeof({c}) FROM {t} LIMIT 1
SELECT named_struct('a', {c}, 'b', {d}) FROM {t}
SELECT make_array({c}, {c} + 1)[{c}] FROM {t}
SELECT string_agg(CAST({d} AS VARCHAR), ',') FROM {t}
SELECT median({c}), approx_percentile_cont({c}, 0.5), stddev({c}), var_pop({c}) FROM {t}
SELECT sum({c}), avg({c}), bit_xor({c}) FROM {t}
SELECT sum({c}) FILTER (WHERE 1 / ({c} - 3) > 0) FROM {t}
SELECT count(*) FROM {t} GROUP BY 1 / ({c} - 3)
SELECT no_such_column FROM {t}
SELECT {c}x FROM {t}
SELECT no_such_function({d}) FROM {t}
SELECT {d} + 1 FROM {t}
SELECT * FROM {t} WHERE {d}
SELECT ({t}).{c} FROM {t}
SELECT * EXCLUDE ({c}) FROM {t}
SELECT * REPLACE ({d} AS {c}) FROM {t}
SELECT * FROM {t} TABLESAMPLE SYSTEM (50)
SELECT unnest(array_agg({d})) FROM {t}
DESCRIBE {t}
SHOW COLUMNS FROM {t}
SHOW CREATE TABLE {t}
SHOW STATS FOR {t}
ANALYZE TABLE {t}
SELECT * FROM "{t}$files"
SELECT *, "$path", _file, rowid, ctid FROM {t}
SELECT rowid FROM {t}
SELECT input_file_name() FROM {t}
SELECT * FROM {t} FOR SYSTEM_TIME AS OF TIMESTAMP '2024-01-01 00:00:00'
""".strip().splitlines()

#: For columns of the governed tables with their types; `{p}` is the depot and schema.
PARTICULAR = """
SELECT p.name, o.comment, o.amount FROM {p}.people p JOIN {p}.orders o ON p.id = o.person_id
SELECT p.badge, o.buyer FROM {p}.people p JOIN {p}.orders o ON p.badge = o.buyer
SELECT p.id, o.order_id FROM {p}.people p LEFT JOIN {p}.orders o ON p.id = o.person_id AND o.amount / (p.salary - 1000) > 0
SELECT p.* FROM {p}.people p LEFT JOIN {p}.notes n ON n.person_id = p.id WHERE n.owner IS NULL
SELECT n.* FROM {p}.notes n WHERE n.owner <> 'analyst'
SELECT salary FROM {p}.people WHERE salary > 700000000000000
SELECT salary, count(*) FROM {p}.people GROUP BY salary
SELECT salary - 700000000000000 FROM {p}.people
SELECT sum(salary), avg(salary), min(salary), max(salary), stddev(salary) FROM {p}.people
SELECT 1 / (salary - 1000) FROM {p}.people
SELECT CAST(ssn AS INT) FROM {p}.people
SELECT CAST(email AS BIGINT) FROM {p}.people
SELECT CAST(secret AS INT) FROM {p}.people
SELECT CAST(phone AS INT) FROM {p}.people
SELECT * FROM {p}.people WHERE CAST(nick AS INT) > 0
SELECT born, born - INTERVAL '1' DAY, extract(doy FROM born), date_trunc('day', seen) FROM {p}.people
SELECT min(born), max(born), min(seen), max(seen) FROM {p}.people
SELECT * FROM {p}.people WHERE born < DATE '1900-01-01'
SELECT card, length(card), count(*) OVER (PARTITION BY card) FROM {p}.people
SELECT length(name), length(secret), octet_length(nick), ascii(nick), reverse(name), md5(ssn), strpos(name, 'k') FROM {p}.people
SELECT levenshtein(name, 'Ka'), translate(name, 'abc', 'xyz'), split_part(name, 'k', 2), overlay(name PLACING 'x' FROM 3) FROM {p}.people
SELECT coalesce(secret, name), nullif(ssn, 'hidden'), greatest(salary, id), name || nick FROM {p}.people
SELECT max(amount), min(amount), sum(amount), max(placed), min(placed), max(due), bool_or(paid) FROM {p}.orders
SELECT amount, 100 / amount FROM {p}.orders
SELECT CAST(amount AS DECIMAL(5, 2)), CAST(amount AS SMALLINT) FROM {p}.orders
SELECT status, region, channel, gone, count(*) FROM {p}.orders GROUP BY status, region, channel, gone
SELECT DISTINCT region, status FROM {p}.orders WHERE region NOT IN ('EU', 'UK', 'DK')
SELECT count(*) FROM {p}.orders WHERE region IS NULL OR status IS NULL OR qty <= 0 OR gone IS NOT NULL OR price > 500.25
SELECT o.* FROM {p}.regions r LEFT JOIN {p}.orders o ON o.region = r.region
SELECT r.*, p.name FROM {p}.regions r FULL JOIN {p}.people p ON p.region = r.region
SELECT (SELECT name FROM {p}.people WHERE id = 1), (SELECT name FROM {p}.people)
SELECT * FROM {p}.people p WHERE salary = (SELECT max(salary) FROM {p}.people)
SELECT * FROM {p}.people p WHERE salary >= ALL (SELECT salary FROM {p}.people)
VALUES ((SELECT max(name) FROM {p}.people), (SELECT max(salary) FROM {p}.people))
SELECT * FROM (VALUES ('Aa')) AS v(x) JOIN {p}.people ON name > x
SELECT a.id FROM {p}.people a WHERE a.id = (SELECT max(s.rank) FROM {p}.regions s) ORDER BY a.id, a.secret
SELECT a.id, rank() OVER (ORDER BY a.id, a.secret) FROM {p}.people a JOIN (SELECT 5 AS x) b ON a.id = b.x
SELECT approx_distinct(ssn), count(DISTINCT secret), approx_median(salary), corr(salary, id) FROM {p}.people
SELECT first_value(secret ORDER BY salary DESC), array_agg(name ORDER BY salary), last_value(ssn ORDER BY id) FROM {p}.people
""".strip().splitlines()

NESTED = """
SELECT payload['ip'], payload['geo']['city'], payload['geo']['lat'], tags[1], steps[1]['note'] FROM {p}.events
SELECT payload FROM {p}.events WHERE payload['ip'] <> 'REDACTED'
SELECT unnest(tags) FROM {p}.events
SELECT unnest(steps) FROM {p}.events
SELECT s['note'] FROM (SELECT unnest(steps) AS s FROM {p}.events) x
SELECT unnest(payload) FROM {p}.events
SELECT array_to_string(tags, ','), array_length(tags), array_sort(tags), array_position(tags, 'x') FROM {p}.events
SELECT payload['geo']['city'], count(*) FROM {p}.events GROUP BY payload['geo']['city']
SELECT CAST(payload['geo']['city'] AS INT) FROM {p}.events
SELECT 1 / (payload['size'] - payload['size']) FROM {p}.events
SELECT max(payload['size']), min(payload['geo']['lat']), max(device), min(device) FROM {p}.events
SELECT CAST(payload AS VARCHAR), CAST(tags AS VARCHAR) FROM {p}.events
SELECT region, kind, count(*) FROM {p}.events GROUP BY region, kind
SELECT DISTINCT region FROM {p}.events
SELECT min(region), max(region), count(DISTINCT region) FROM {p}.events
SELECT * FROM {p}.events WHERE region > 'UK'
SELECT * FROM {p}.events e JOIN {p}.events f ON e.payload = f.payload
SELECT device, device % 10, CAST(device AS SMALLINT) FROM {p}.events
SELECT address['city'], address['zip'], labels['kind'], phones[1] FROM {p}.profiles
SELECT map_keys(labels), map_values(labels), map_entries(labels), cardinality(labels) FROM {p}.profiles
SELECT unnest(map_values(labels)) FROM {p}.profiles
SELECT address FROM {p}.profiles WHERE address['city'] <> 'REDACTED'
SELECT address['zip'], count(*) FROM {p}.profiles GROUP BY address['zip'] ORDER BY 1 DESC
SELECT blob, length(blob), encode(blob, 'hex') FROM {p}.profiles
SELECT DISTINCT address FROM {p}.profiles
SELECT address, labels, phones FROM {p}.profiles ORDER BY person_id DESC LIMIT 3
SELECT * FROM {p}.events a LEFT JOIN {p}.profiles b ON a.person_id = b.person_id
SELECT count(*) FROM {p}.profiles WHERE address['country'] = 'ZZ'
""".strip().splitlines()

EXPLAINS = [
    "EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN ANALYZE", "EXPLAIN ANALYZE VERBOSE", "EXPLAIN (TYPE LOGICAL)", "EXPLAIN (TYPE VALIDATE)",
    "EXPLAIN (TYPE LOGICAL, FORMAT JSON)", "EXPLAIN (TYPE LOGICAL, FORMAT GRAPHVIZ)", "EXPLAIN (FORMAT JSON)", "EXPLAIN (FORMAT GRAPHVIZ)",
    "EXPLAIN (TYPE DISTRIBUTED, FORMAT TEXT)", "EXPLAIN (ANALYZE, FORMAT JSON)", "EXPLAIN (ANALYZE, FORMAT GRAPHVIZ)", "EXPLAIN (TYPE IO, FORMAT JSON)",
]
EXPLAINED = [
    "SELECT * FROM {t}",
    "SELECT {c}, {d} FROM {t} WHERE {c} > 5 AND {c} < 700000000000000 AND {d} IS NOT NULL",
    "SELECT a.{c}, max(b.{d}) FROM {t} a LEFT JOIN {t} b ON a.{c} = b.{c} GROUP BY a.{c}",
    "SELECT * FROM {t} ORDER BY {c} DESC LIMIT 3",
    "SELECT count(*), min({c}), max({c}) FROM {t}",
]

SHOWS = [
    "SHOW CATALOGS", "SHOW FUNCTIONS", "SHOW SCHEMAS", "SHOW TABLES", "SHOW SESSION", "SHOW ALL", "SELECT * FROM information_schema.tables",
    "SELECT * FROM system.information_schema.tables", "SELECT * FROM system.information_schema.columns",
    "SELECT * FROM system.runtime.nodes", "SELECT * FROM system.runtime.queries", "SELECT * FROM system.runtime.tasks",
    "SELECT max(error_message), max(query) FROM system.runtime.queries", "SELECT * FROM information_schema.df_settings",
    "SELECT * FROM system.metadata.catalogs", "CALL system.runtime.kill_query('20200101_000000_00000_aaaaa')",
]
LISTINGS = [
    "SHOW SCHEMAS FROM {depot}", "SHOW TABLES FROM {p}", "SELECT * FROM {depot}.information_schema.tables",
    "SELECT * FROM {depot}.information_schema.columns", "SELECT * FROM {depot}.information_schema.schemata", "USE {p}",
]

#: Statements that nobody may run, and other ways to the same files.
REFUSED = [
    "DELETE FROM {p}.people", "DELETE FROM {p}.people WHERE salary > 5", "UPDATE {p}.people SET name = 'x' WHERE CAST(ssn AS INT) = 1",
    "MERGE INTO {p}.people t USING {p}.orders o ON t.id = o.person_id WHEN MATCHED THEN DELETE", "TRUNCATE TABLE {p}.people",
    "INSERT INTO {p}.people SELECT * FROM {p}.people", "INSERT INTO {p}.notes VALUES ('x', 1, 'y')", "CREATE TABLE {p}.copy AS SELECT * FROM {p}.people",
    "DROP TABLE {p}.people", "ALTER TABLE {p}.people RENAME TO other", "COPY {p}.people TO 'people.csv'",
    "COPY (SELECT * FROM {p}.people) TO '/tmp/people.parquet'", "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{folder}/sources/files/shop/people.csv'",
    "CREATE TABLE x AS SELECT * FROM {p}.people", "SELECT * INTO x FROM {p}.people", "CREATE MATERIALIZED VIEW x AS SELECT * FROM {p}.people",
    "SELECT * FROM read_csv('{folder}/sources/files/shop/people.csv')", "SELECT * FROM read_parquet('{folder}/sources/files/shop/profiles.parquet')",
    "SELECT * FROM parquet_metadata('{folder}/sources/files/shop/profiles.parquet')", "SELECT * FROM '{folder}/sources/files/shop/people.csv'",
    "SELECT * FROM \"{folder}/sources/files/shop/people.csv\"", "SELECT * FROM \"file://{folder}/sources/files/shop/people.csv\"",
    "SELECT * FROM glob('{folder}/**')", "SELECT * FROM query('SELECT 1')", "SELECT * FROM TABLE(files.system.query(query => 'SELECT * FROM people'))",
    "SELECT * FROM {depot}.main.sqlite_master", "SELECT * FROM {depot}.pg_catalog.pg_authid", "SELECT * FROM {depot}.public.\"people; SELECT 1\"", "SELECT * FROM {depot}.public.pg_class", "SELECT * FROM {depot}.shop.\"people.csv\"", "SELECT * FROM {depot}.\"shop/people\".x", "SELECT * FROM {depot}.\"..\".people",
    "SELECT * FROM {depot}.shop.\"../vault/gold\"", "SELECT * FROM {depot}.\"shop/..\".\"vault/gold\"", "SELECT * FROM {depot}.\"../files/vault\".gold",
    "SELECT * FROM \"dataos://{depot}:shop/../vault/gold\"", "SELECT * FROM \"dataos://{depot}:vault/gold\"", "SELECT * FROM \"dataos://{depot}\"",
    "SET ROLE steward", "SET SESSION AUTHORIZATION steward", "SET datafusion.execution.collect_statistics = true", "EXECUTE IMMEDIATE 'SELECT 1'",
    "PREPARE s AS SELECT * FROM {p}.people", "EXECUTE s", "SELECT 1; SELECT * FROM {p}.people", "EXPLAIN DELETE FROM {p}.people", "ATTACH 'lite.db' AS x",
    "LOAD 'x'", "CREATE FUNCTION f(x INT) RETURNS INT RETURN x", "GRANT SELECT ON {p}.people TO outsider", "DO $$ SELECT 1 $$", "BEGIN", "COMMIT",
    "SELECT minerva_mask_hash('x')", "SELECT minerva_mask_tokenize('x', 'masking')", "SELECT minerva_mask_expression(1, 'value')",
]

TYPES = {"people": ("id", "name"), "orders": ("order_id", "comment"), "events": ("event_id", "kind"), "profiles": ("person_id", "phones"), "notes": ("person_id", "body")}
SECOND = {"people": ["salary", "ssn", "secret", "born", "nick", "city"], "orders": ["amount", "buyer", "placed"], "events": ["device", "region", "payload"],
          "profiles": ["address", "labels", "blob"], "notes": ["owner"]}


def spellings(depot, name):
    """The same table by other names: case, quotes, addresses."""
    catalog, schema = PREFIX[depot].split(".")
    return [
        f"{catalog.upper()}.{schema}.{name.upper()}", f'"{catalog}"."{schema}"."{name}"', f'{catalog}."{schema}".{name}', f'"dataos://{catalog}:{schema}/{name}"',
        f'"dataos://{catalog}:{schema}/{name}?acl=r"', f'"{catalog}.{schema}.{name}"', f'"{catalog.upper()}"."{schema}"."{name}"', f'{catalog} . {schema} . {name}',
        f'{catalog}./* x */{schema}.{name}', f'"DATAOS://{catalog}:{schema}/{name}"', f'"{catalog}"."{schema}"."{name.replace("e", chr(0x435))}"',
    ]


def as_analyst():
    """Everything that the analyst can think of."""
    client, count, succeeded = Client(PROXY.address, "analyst", ANALYST_KEY), 0, 0

    def run(sql, parameters=None):
        nonlocal count, succeeded
        table, error = ask(client, sql, parameters)
        count, succeeded = count + 1, succeeded + (error is None)
        return table, error

    for depot, names in DEPOTS.items():
        p = PREFIX[depot]
        for name in names:
            first, second = TYPES[name]
            for shape in SHAPES:
                run(shape.replace("{t}", f"{p}.{name}").replace("{c}", first).replace("{d}", second))
            for other in SECOND[name]:
                for shape in SHAPES[2:]:
                    if "{d}" in shape:
                        run(shape.replace("{t}", f"{p}.{name}").replace("{c}", first).replace("{d}", other))
            for explain in EXPLAINS:
                for statement in EXPLAINED:
                    run(f"{explain} {statement}".replace("{t}", f"{p}.{name}").replace("{c}", first).replace("{d}", second))
            for spelling in spellings(depot, name):
                run(f"SELECT * FROM {spelling}")
                run(f"DESCRIBE {spelling}")
        for statement in PARTICULAR + (NESTED if depot == "files" else []):
            run(statement.replace("{p}", p))
            run("EXPLAIN " + statement.replace("{p}", p))
        for listing in LISTINGS:
            run(listing.format(depot=depot, p=p))
        views(client, run, p)
        prepared(run, p)
    for show in SHOWS:
        run(show)
    refused(client, "analyst")
    run("SELECT * FROM system.runtime.queries")
    print(f"ok {count} statements as analyst, {succeeded} of them with rows, {PROXY.total >> 10} KiB looked at", flush=True)
    if succeeded < count // 2:
        fail(f"only {succeeded} of {count} statements succeeded: the test looks at nothing but errors")
    client.close()


def views(client, run, p):
    for name, text in {
        "v1": f"SELECT * FROM {p}.people", "v2": "SELECT name AS n, salary AS s, ssn FROM v1", "v3": f"SELECT a.*, b.n FROM v1 a JOIN v2 b ON a.name = b.n",
        "people": f"SELECT * FROM {p}.people", "v4": f"SELECT 1 / (salary - 1000) AS x, CAST(ssn AS INT) AS y FROM {p}.people",
    }.items():
        run(f"CREATE OR REPLACE VIEW {name} AS {text}")
        for statement in ("SELECT * FROM {}", "SELECT count(*) FROM {}", "DESCRIBE {}", "SHOW COLUMNS FROM {}", "EXPLAIN SELECT * FROM {}", "EXPLAIN ANALYZE SELECT * FROM {}"):
            run(statement.format(name))
    for name in ("v4", "people", "v3", "v2", "v1"):
        run(f"DROP VIEW {name}")


def prepared(run, p):
    """Probes with what is really hidden. It is sent as a value, so that no statement repeats it."""
    raw = {name: governed.raw(name, "a") for name in ("people", "orders", "notes")}
    for column in ("name", "email", "phone", "ssn", "nick", "secret", "card", "badge"):
        guess = next(row[column] for row in raw["people"] if row[column] and "kanari" in row[column])
        for sql in (f"SELECT count(*) FROM {p}.people WHERE {column} = $1", f"SELECT * FROM {p}.people WHERE {column} = $1",
                    f"SELECT count(*) FROM {p}.people WHERE {column} LIKE $1", f"SELECT 1 / count(*) FROM {p}.people WHERE {column} IN ($1)",
                    f"SELECT CASE WHEN {column} = $1 THEN 1 / 0 ELSE 1 END FROM {p}.people"):
            table, error = run(sql, (guess,))
            if sql.startswith("SELECT count") and table is not None and table.column(0)[0].as_py() != 0:
                fail(f"the raw value of `{column}` is found by {sql}")
            if "CASE" in sql and error is not None and error[0] == "DIVISION_BY_ZERO":
                fail(f"the raw value of `{column}` makes an error in {sql}")
    for table_name, column in (("people", "salary"), ("people", "id"), ("people", "risk"), ("orders", "order_id"), ("orders", "person_id"), ("notes", "person_id")):
        values = [row[column] for row in raw[table_name] if isinstance(row[column], int) and row[column] >= governed.FIRST]
        for sql in (f"SELECT count(*) FROM {p}.{table_name} WHERE {column} = $1", f"SELECT count(*) FROM {p}.{table_name} WHERE {column} >= $1 AND {column} < $1 + 1"):
            table, _ = run(sql, (values[0],))
            if table is None or table.column(0)[0].as_py() != 0:
                fail(f"the raw value of `{column}` is found by {sql}")
        run(f"SELECT 1 / ({column} - $1) FROM {p}.{table_name}", (values[0],))


def refused(client, user):
    for depot in DEPOTS:
        for statement in REFUSED:
            sql = statement.replace("{p}", PREFIX[depot]).replace("{depot}", depot).replace("{folder}", FOLDER)
            _, error = ask(client, sql)
            if error is None and not sql.startswith("SELECT * FROM \"dataos://"):
                fail(f"{user} may run {sql}")
            elif error is None:
                fail(f"{user} may read {sql}")


# ---- Metadata ----------------------------------------------------------------------------------------------------------


def field(number, payload):
    head, out = (number << 3) | 2, bytearray()
    for value in (head, len(payload)):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out) + payload


def packed(kind, message=b""):
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{kind}".encode()) + field(2, message)


METADATA = {
    "CommandGetCatalogs": [b""],
    "CommandGetDbSchemas": [b"", field(1, b"files"), field(2, b"%"), field(1, b"files") + field(2, b"va%")],
    "CommandGetTables": [b"\x28\x01", field(1, b"files") + b"\x28\x01", field(3, b"%") + b"\x28\x01", field(3, b"pay%"), field(2, b"vault"), field(1, b"lite") + b"\x28\x01", field(1, b"pg") + b"\x28\x01"],
    "CommandGetTableTypes": [b""],
    "CommandGetXdbcTypeInfo": [b""],
    "CommandGetSqlInfo": [b""],
    "CommandGetPrimaryKeys": [field(1, b"lite") + field(2, b"main") + field(3, b"people"), field(3, b"payroll")],
    "CommandGetExportedKeys": [field(3, b"people")],
    "CommandGetImportedKeys": [field(3, b"people")],
}


def metadata(user, key, may_see):
    """Every metadata call, by hand and through the driver; no hidden name may come."""
    with flight.FlightClient(f"grpc://{PROXY.address}") as connection:
        options = flight.FlightCallOptions(headers=[connection.authenticate_basic_token(user, key)])
        for kind, messages in METADATA.items():
            for message in messages:
                descriptor = flight.FlightDescriptor.for_command(packed(kind, message))
                info = connection.get_flight_info(descriptor, options)
                table = connection.do_get(info.endpoints[0].ticket, options).read_all()
                rows = table.to_pylist()
                schemas = [pa.ipc.read_schema(pa.BufferReader(row["table_schema"])).to_string() for row in rows if row.get("table_schema")]
                look(f"{user} {kind} {message}", rows, schemas, info.serialize())
                text = str(rows)
                for hidden in ("payroll", "gold", "vault"):
                    if hidden in text:
                        fail(f"{user} sees `{hidden}` in {kind}")
                if not may_see and re.search(r"['\"](plain)?(files|lite|pg)['\"]", text):
                    fail(f"{user} sees a depot in {kind}")
        for statement in ("SELECT * FROM files.shop.people", "SELECT * FROM files.vault.gold", "SELECT CAST(ssn AS INT) FROM files.shop.people"):
            descriptor = flight.FlightDescriptor.for_command(packed("CommandStatementQuery", field(1, statement.encode())))
            for call in (connection.get_schema, connection.get_flight_info):
                try:
                    answer = call(descriptor, options)
                    look(f"{user} {call.__name__} {statement}", answer.schema.to_string(show_field_metadata=True))
                except pa.ArrowException as error:
                    look(f"{user} {call.__name__} {statement}", error)
    client = Client(PROXY.address, user, key)
    objects = client.connection.adbc_get_objects(depth="all").read_all().to_pylist()
    look(f"{user} adbc_get_objects", objects)
    for name in ("people", "payroll", "gold"):
        try:
            look(f"{user} table schema of {name}", client.connection.adbc_get_table_schema(name).to_string(show_field_metadata=True))
            if name != "people" or not may_see:
                fail(f"{user} gets the schema of {name}")
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
            look(f"{user} table schema of {name}", error)
    client.close()
    print(f"ok metadata as {user}", flush=True)


# ---- What may not be selected does not exist ---------------------------------------------------------------------------

NAMING = [
    "SELECT * FROM {t}", "SELECT count(*) FROM {t}", "TABLE {t}", "DESCRIBE {t}", "SHOW COLUMNS FROM {t}", "EXPLAIN SELECT * FROM {t}", "EXPLAIN (TYPE VALIDATE) SELECT * FROM {t}",
    "SELECT 1 FROM {t} x JOIN {t} y ON x.id = y.id", "SELECT (SELECT max(id) FROM {t})", "SELECT 1 WHERE EXISTS (SELECT 1 FROM {t})", "WITH w AS (SELECT * FROM {t}) SELECT 1 FROM w",
    "WITH w AS (SELECT * FROM {t}) SELECT 1", "SELECT 1 UNION ALL SELECT id FROM {t}", "CREATE VIEW hidden_view AS SELECT * FROM {t}", "INSERT INTO {t} VALUES (1, 2, 'x')",
    "INSERT INTO {t} SELECT * FROM {t}", "DROP TABLE {t}", "DROP TABLE IF EXISTS {t}", "CREATE TABLE {t} AS SELECT 1 AS id", "DELETE FROM {t}", "UPDATE {t} SET id = 1",
    "SELECT no_such_column FROM {t}", "SELECT * FROM {t} WHERE id = 'x'", "SELECT * FROM {t}, no.such.table", "SHOW STATS FOR {t}",
]
NAMING_PLACES = [
    "SHOW TABLES FROM {s}", "USE {s}", "SELECT * FROM {s}.nothing", "SHOW TABLES FROM {s} LIKE 'g%'",
]


def same_as_nothing(user, key, real, fake, templates, mark):
    """Every template answers the same for a name that is hidden and a name that nobody has."""
    client = Client(PROXY.address, user, key)
    for template in templates:
        answers = []
        for name in (real, fake):
            table, error = ask(client, template.replace(mark, name))
            answer = error if error is not None else ("", str(table.schema) + str(governed.rows_of(table)))
            text = answer[1]
            # Names appear whole, in parts, and as addresses.
            for part, word in zip(re.split(r"[.:/]+", name.strip('"').removeprefix("dataos://")), ("ONE", "TWO", "THREE")):
                text = re.sub(rf"\b{part}\b", word, text)
            answers.append((answer[0], text))
        if answers[0] != answers[1]:
            fail(f"{user}: {template} differs for `{real}` and `{fake}`:\n    {answers[0]}\n    {answers[1]}")
    client.close()


def hidden_names():
    users = (("analyst", ANALYST_KEY), ("outsider", OUTSIDER_KEY))
    for user, key in users:
        same_as_nothing(user, key, "files.vault.gold", "files.vaunt.gild", NAMING, "{t}")
        same_as_nothing(user, key, "files.vault", "files.vaunt", NAMING_PLACES, "{s}")
        same_as_nothing(user, key, '"dataos://files:vault/gold"', '"dataos://files:vaunt/gild"', NAMING[:12], "{t}")
        same_as_nothing(user, key, "files.shop.payroll", "files.shop.paydoll", NAMING, "{t}")
        same_as_nothing(user, key, "lite.main.payroll", "lite.main.paydoll", NAMING, "{t}")
        same_as_nothing(user, key, "pg.public.payroll", "pg.public.paydoll", NAMING, "{t}")
    same_as_nothing("outsider", OUTSIDER_KEY, "files.shop.people", "filez.shup.poeple", NAMING, "{t}")
    same_as_nothing("outsider", OUTSIDER_KEY, "lite.main.people", "lita.mean.poeple", NAMING, "{t}")
    same_as_nothing("outsider", OUTSIDER_KEY, "pg.public.people", "pq.pablic.poeple", NAMING, "{t}")
    same_as_nothing("outsider", OUTSIDER_KEY, "files.shop", "filez.shup", NAMING_PLACES, "{s}")
    same_as_nothing("outsider", OUTSIDER_KEY, "files", "filez", ["SHOW SCHEMAS FROM {s}", "SELECT * FROM {s}.information_schema.tables", "USE {s}.information_schema"], "{s}")
    print("ok hidden names are as if they did not exist", flush=True)


def as_outsider():
    client, rows = Client(PROXY.address, "outsider", OUTSIDER_KEY), 0
    for depot, names in DEPOTS.items():
        for name in [*names, "regions", "payroll"]:
            first, second = TYPES.get(name, ("id", "why"))
            for shape in SHAPES:
                sql = shape.replace("{t}", f"{PREFIX[depot]}.{name}").replace("{c}", first).replace("{d}", second)
                table, error = ask(client, sql)
                rows += error is None
                if error is None:
                    fail(f"outsider may run {sql}")
            for spelling in spellings(depot, name):
                if ask(client, f"SELECT * FROM {spelling}")[1] is None:
                    fail(f"outsider may read {spelling}")
        for listing in LISTINGS:
            ask(client, listing.format(depot=depot, p=PREFIX[depot]))
    for show in SHOWS:
        ask(client, show)
    seen = ask(client, "SELECT DISTINCT \"user\" FROM system.runtime.queries")[0]
    if seen is None or seen.to_pylist() != [{"user": "outsider"}]:
        fail(f"outsider sees the queries of others: {seen}")
    refused(client, "outsider")
    client.close()
    print("ok everything as outsider", flush=True)


def other_peoples_handles():
    """A ticket of one user is worth nothing to another."""
    with flight.FlightClient(f"grpc://{PROXY.address}") as one, flight.FlightClient(f"grpc://{PROXY.address}") as other:
        mine = flight.FlightCallOptions(headers=[one.authenticate_basic_token("analyst", ANALYST_KEY)])
        theirs = flight.FlightCallOptions(headers=[other.authenticate_basic_token("outsider", OUTSIDER_KEY)])
        statement = flight.FlightDescriptor.for_command(packed("CommandStatementQuery", field(1, b"SELECT * FROM files.shop.notes")))
        info = one.get_flight_info(statement, mine)
        made_up = flight.Ticket(packed("TicketStatementQuery", field(1, b"0123456789abcdef")))
        answers = []
        for ticket in (info.endpoints[0].ticket, made_up):
            try:
                table = other.do_get(ticket, theirs).read_all()
                fail(f"a ticket of the analyst gives the outsider {table.num_rows} rows")
            except pa.ArrowException as error:
                answers.append(governed.QUERY_ID.sub("QUERY", str(error)).split("gRPC")[0])
        look("another user's ticket", *answers)
        if len(set(answers)) != 1:
            fail(f"another user's ticket and one that does not exist answer differently: {answers}")
        one.do_get(info.endpoints[0].ticket, mine).read_all()
    print("ok tickets are bound to their users", flush=True)


def the_scanner_sees():
    """The steward reads the same tables unmasked: what the scanner looks for must be found there, in bytes and in text."""
    client = Client(PROXY.address, "steward", STEWARD_KEY)
    for depot, names in DEPOTS.items():
        for name in names:
            table, error = client.run(f"SELECT * FROM {PREFIX[depot]}.{name}")
            if error is not None or table.num_rows != len(governed.raw(name, "a")):
                fail(f"the steward cannot read {depot} {name}: {error}")
                continue
            found = b" ".join(PROXY.take())
            patterns = [b"kanari"] + ([] if name == "notes" else [numbers_as_bytes()[0]]) + ([numbers_as_bytes()[1]] if name in ("people", "events") else [])
            for pattern in patterns:
                if not re.search(pattern, found, re.DOTALL) or not scan(str(governed.rows_of(table))):
                    fail(f"the scanner does not see {pattern} in {depot} {name}")
    client.close()
    with PROXY.lock:
        for stream in PROXY.streams.values():
            stream.clear()
    print("ok the steward sees everything, and the scanner sees it too", flush=True)


def main():
    the_scanner_sees()
    metadata("analyst", ANALYST_KEY, True)
    metadata("outsider", OUTSIDER_KEY, False)
    as_analyst()
    as_outsider()
    hidden_names()
    other_peoples_handles()
    print(f"{len(failures)} failures", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""PostgreSQL's own row security and security-barrier views as an oracle: the same data, the same policies, the same statements.

Usage: python rls_oracle.py [--seed N] [--statements N] [--go-on] -- FLIGHT KEY POSTGRES_PORT

FLIGHT serves the twin `a` that governed.py wrote, whose depot `pg` is the database `twin_a` of that PostgreSQL; KEY is that of `analyst`. Here the
policies are written again by hand, as row security and as views with masks, for a role `analyst` of the database. What Minerva answers from
`pg` must be what PostgreSQL answers to that role from its views. Columns masked by chance are left out.

How many statements PostgreSQL computed with governed tables behind fences is counted, so that it cannot be none.

What only one dialect has is not compared, nor are statements that one side refuses: which rows an expression is evaluated on, and so whether
it fails, is for a planner to decide. How often that is so is limited, so that the test cannot compare nothing.
"""

import argparse
import hashlib
import re
import sys
from datetime import date, datetime, timedelta
from decimal import Decimal

import governed
import psycopg
import twins

SHOWN = {name: [column for column in kinds if column not in governed.UNPREDICTABLE.get(name, [])] for name, kinds in governed.TYPES.items() if name in governed.FLAT}


def keyed(prefix, column, length):
    """HMAC-SHA-256 in SQL."""
    key = governed.KEY.ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in key).hex() for pad in (0x36, 0x5C))
    return f"left(encode(sha256('\\x{outer}'::bytea || sha256('\\x{inner}{prefix.hex()}'::bytea || convert_to({column}, 'UTF8'))), 'hex'), {length})"


def keep(column, first, last):
    rest = f"repeat('*', greatest(length({column}) - {first + last}, 0))"
    shown = f"left({column}, {first}) || {rest} || right({column}, {last})" if last else f"left({column}, {first}) || {rest}"
    return f"CASE WHEN length({column}) <= {first + last} THEN repeat('*', length({column})) ELSE {shown} END"


def bucket(column, *edges):
    below = " ".join(f"WHEN {column} >= {edge} THEN {edge}" for edge in sorted(edges, reverse=True))
    return f"CASE {below} END"


def unless_null(column, mask):
    return f"CASE WHEN {column} IS NOT NULL THEN {mask} END"


TOKEN = lambda column: keyed(b"minerva tokenize\0text", column, 32)
#: The masks of governed.py, in PostgreSQL's words.
MASKS = {
    "people": {
        "name": keep("name", 2, 0), "email": keyed(b"", "email", 64), "phone": "regexp_replace(phone, '[a-z]{6}$', 'xxxxxx')", "ssn": unless_null("ssn", "'hidden'"),
        "salary": bucket("salary", 0, 1000, 2000, 700_000_000_000_000), "born": "date_trunc('year', born)::date", "seen": "date_trunc('month', seen)",
        "vip": unless_null("vip", "false"), "rating": unless_null("rating", "1.5::double precision"), "badge": TOKEN("badge"), "nick": "left(nick, 1) || '.'", "secret": "NULL::text",
    },
    "orders": {
        "buyer": TOKEN("buyer"), "amount": bucket("amount", "0.00", "100.00", "1000.00"), "placed": "date_trunc('month', placed)", "due": unless_null("due", "DATE '1970-01-01'"),
        "paid": unless_null("paid", "false"), "comment": keep("comment", 0, 2),
    },
}
FILTERS = {
    "people": "region = 'EU' AND CASE WHEN risk IS NULL OR risk = 0 THEN false ELSE 100 / risk >= 1 END AND coalesce(level, 0) < 4",
    "orders": "status IN ('new', 'paid', 'sent') AND region NOT IN ('kanariland', 'NO') AND qty > 0 AND channel LIKE 'web%' AND price <= 500.25 AND gone IS NULL",
    "notes": "owner = 'analyst'",
    "regions": "true",
}


def govern(connection):
    """The policies, in the database."""
    connection.execute("CREATE ROLE analyst LOGIN")
    connection.execute("CREATE SCHEMA seen")
    connection.execute("GRANT USAGE ON SCHEMA seen TO analyst")
    # The views belong to a role that row security binds.
    connection.execute("CREATE ROLE keeper")
    connection.execute("GRANT USAGE, CREATE ON SCHEMA seen TO keeper")
    connection.execute("GRANT USAGE ON SCHEMA public TO keeper")
    for name, visible in FILTERS.items():
        connection.execute(f"ALTER TABLE public.{name} ENABLE ROW LEVEL SECURITY")
        connection.execute(f"CREATE POLICY visible ON public.{name} FOR SELECT TO keeper USING ({visible})")
        connection.execute(f"GRANT SELECT ON public.{name} TO keeper")
        columns = ", ".join(f"{MASKS.get(name, {}).get(column, column)} AS {column}" for column in SHOWN[name])
        connection.execute("SET ROLE keeper")
        connection.execute(f"CREATE VIEW seen.{name} WITH (security_barrier) AS SELECT {columns} FROM public.{name}")
        connection.execute(f"GRANT SELECT ON seen.{name} TO analyst")
        connection.execute("RESET ROLE")


#: So many statements have to be computed by PostgreSQL with governed tables behind fences.
FEWEST_FENCES = 10

#: What PostgreSQL has not, or means otherwise.
OTHERWISE = re.compile(
    r"TRY_CAST|to_timestamp|approx_|median|string_agg|array_agg|TINYINT|to_date|GROUPING SETS|first_value\(\w+ ORDER|last_value\(\w+ ORDER|LATERAL"
    # A number of seconds, a text with and without its type, a window over rows that tie.
    r"|AS VARCHAR|card|regexp_replace\(region|/ |sqrt|avg\(|SELECT \*|USING|extract|max\(CAST|substr",
)


def for_postgres(sql):
    sql = re.sub(r"\bpg\.public\.", "seen.", sql)
    sql = re.sub(r"\bAS DOUBLE\b", "AS DOUBLE PRECISION", sql)
    return re.sub(r"\b(\d+\.?\d*)e0\b", r"\1::double precision", sql)


def shown(value):
    """A value as both sides can write it."""
    match value:
        case None | bool() | str():
            return value
        case int() | Decimal() | float():
            return f"{float(value):.9g}"
        case datetime() | date():
            # A date is the beginning of its day.
            return value.isoformat()[:19].removesuffix("T00:00:00")
        case timedelta():
            return value.total_seconds()
        case _:
            return str(value)


def rows_of(rows, ordered):
    rows = [repr(tuple(map(shown, row))) for row in rows]
    return rows if ordered else sorted(rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server", nargs=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--statements", type=int, default=300)
    parser.add_argument("--go-on", action="store_true")
    arguments = parser.parse_args()
    address, key, port = arguments.server
    place = {"host": "127.0.0.1", "port": port, "dbname": "twin_a", "autocommit": True}
    with psycopg.connect(user="reader", **place) as owner:
        govern(owner)
    client = governed.Client(address, "analyst", key)
    # All that can be computed there is, and so as many fences as there can be.
    _, error = client.run("SET SESSION pg.join_pushdown_strategy = 'EAGER'")
    assert error is None, error
    oracle = psycopg.connect(user="analyst", **place)
    oracle.execute("SET statement_timeout = '20s'")
    grammar = twins.Grammar(arguments.seed)
    templates = [*twins.BY_HAND, *(grammar.statement() for _ in range(arguments.statements))]
    counts = dict.fromkeys(["statements", "equal", "with rows", "both refuse", "one refuses", "with fences"], 0)
    failures = 0
    for template in templates:
        template, _, flags = template.partition(" --")
        if OTHERWISE.search(template) or "random" in flags:
            continue
        counts["statements"] += 1
        sql = re.sub(r"\{(\w+)\}", r"pg.public.\1", template)
        table, error = client.run(sql)
        try:
            expected = oracle.execute(for_postgres(sql)).fetchall()
        except psycopg.Error as refusal:
            counts["one refuses" if error is None else "both refuse"] += 1
            if error is None and arguments.go_on:
                print(f"only PostgreSQL refuses: {sql}\n  {refusal}", flush=True)
            continue
        if error is not None:
            counts["one refuses"] += 1
            if arguments.go_on:
                print(f"only Minerva refuses: {sql}\n  {error[1][:300]}", flush=True)
            continue
        ordered = "ordered" in flags
        ours, theirs = rows_of(governed.rows_of(table), ordered), rows_of(expected, ordered)
        if ours == theirs:
            counts["equal"] += 1
            counts["with rows"] += bool(ours)
            plan, _ = client.run(f"EXPLAIN {sql}")
            counts["with fences"] += plan is not None and "GovernedStatement" in repr(governed.rows_of(plan))
            continue
        failures += 1
        only = [row for row in ours if row not in theirs][:3], [row for row in theirs if row not in ours][:3]
        print(f"DIVERGENCE from PostgreSQL\n{sql}\n{for_postgres(sql)}\n{len(ours)} and {len(theirs)} rows; only here {only[0]}; only there {only[1]}\n", flush=True)
        if not arguments.go_on:
            break
    print(f"seed {arguments.seed}: {counts}", flush=True)
    if counts["one refuses"] * 5 > counts["statements"] or counts["with rows"] * 3 < counts["statements"]:
        print("too few statements are compared", flush=True)
        return 1
    if counts["with fences"] < FEWEST_FENCES:
        print("PostgreSQL computes too few statements behind fences", flush=True)
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""Statements that change rows, by the user of twins.py on both twins: whether they are taken, how many rows they change and what is seen
afterwards must be the same, and the rows that the user does not see must be there afterwards as they were.

Usage: python twins_writes.py [--depot lite|pg] [--seed N] [--statements N] [--postgres PORT] -- FOLDER_A FOLDER_B ADDRESS_A KEY_A ADDRESS_B KEY_B

The folders are those that governed.py filled, of running servers; their manifests are changed here so that the depot takes writes.
"""

import argparse
import re
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

import adbc_driver_manager
import governed
import psycopg
import twins

WRITERS = """\
name: writers
version: v1
type: policy
policy: {access: {subjects: {tags: [roles:id:analyst]}, predicates: [insert, update, delete], objects: {paths: ["dataos://lite:main/*", "dataos://pg:public/*"]}, allow: true}}
"""
#: What may be set: columns that nothing masks, with values that keep a row visible and values that do not.
SETS = {
    "orders": [("qty", "qty + 1"), ("qty", "0"), ("status", "'paid'"), ("status", "'gone'"), ("channel", "'web-app'"), ("price", "price / 2"), ("comment", "'x'"), ("status", "comment")],
    "people": [("city", "'Oslo'"), ("level", "1"), ("level", "9"), ("active", "NOT active"), ("region", "'EU'"), ("region", "'US'"), ("risk", "risk"), ("salary", "1"), ("city", "name")],
    "notes": [("body", "'written'"), ("owner", "'steward'"), ("person_id", "person_id + 1")],
}
INSERTS = [
    "INSERT INTO {notes} VALUES ('analyst', 7, 'new')",
    "INSERT INTO {notes} VALUES ('steward', 7, 'somebody else''s')",
    "INSERT INTO {notes} SELECT owner, person_id, body FROM {notes} WHERE person_id < 10",
    "INSERT INTO {notes} (owner, body) VALUES ('analyst', 'half')",
    "INSERT INTO {people} (id, name) VALUES (1000, 'x')",
]


def statement(grammar):
    name = grammar.pick(list(SETS))
    scope = [("a", name)]
    # What reads a masked column is refused, which most statements should not be.
    masked, open_only = {*governed.MASKS.get(name, {}), "card"}, grammar.chance(0.8)
    where = f" WHERE {grammar.predicate(scope, 1)}" if grammar.chance(0.9) else ""
    while open_only and masked & set(re.findall(r"\w+", where)):
        where = f" WHERE {grammar.predicate(scope, 1)}"
    chance = grammar.random.random()
    if chance < 0.15:
        return grammar.pick(INSERTS)
    if chance < 0.40:
        return f"DELETE FROM {{{name}}} AS a WHERE a.{twins.KEYS[name]} = {grammar.random.randrange(1, 160)}" + where.replace(" WHERE ", " AND ", 1)
    settable = [(column, value) for column, value in SETS[name] if not open_only or not masked & {column, value}]
    chosen = grammar.random.sample(settable, grammar.random.randrange(1, 3))
    sets = {column: value for column, value in chosen}
    return f"UPDATE {{{name}}} AS a SET {', '.join(f'{column} = {value}' for column, value in sets.items())}{where}"


def let_write(folder):
    resources = Path(folder) / "resources"
    for file in ["depots.yaml", "postgres.yaml"]:
        if (resources / file).exists():
            text = (resources / file).read_text()
            text = re.sub(r"(name: (?:lite|pg), .*?\{type: [A-Z]+), ", r"\1, acl: rw, acceptsTags: true, ", text)
            (resources / file).write_text(text)
    (resources / "writers.yaml").write_text(WRITERS)


def change(client, sql):
    """(rows changed, None), or (None, (code, text))."""
    try:
        with client.connection.cursor() as cursor:
            cursor.adbc_statement.set_sql_query(sql)
            return cursor.adbc_statement.execute_update(), None
    except adbc_driver_manager.Error as error:
        text = lambda value: value.decode() if isinstance(value, bytes) else value
        details = {text(name): text(value) for name, value in (error.details or [])}
        return None, (details.get("minerva-error-code", ""), governed.QUERY_ID.sub("QUERY", str(error)))


def stored(depot, folder, twin, port, name):
    """Every row of a table as its source has it, in the order in which the rows lie there."""
    if depot == "lite":
        with sqlite3.connect(Path(folder) / "sources" / "lite.db") as database:
            return list(map(repr, database.execute(f"SELECT * FROM {name} ORDER BY rowid")))
    with psycopg.connect(host="127.0.0.1", port=port, user="reader", dbname=f"twin_{twin}") as database:
        return list(map(repr, database.execute(f"SELECT * FROM public.{name} ORDER BY ctid").fetchall()))


def hidden(rows, twin, name):
    """Those of a table's rows, as they were written, that the analyst does not see."""
    flags = [visible for visible, _ in governed.TABLES[name](twin)]
    assert len(rows) == len(flags), (name, len(rows), len(flags))
    return Counter(row for row, visible in zip(rows, flags) if not visible)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("places", nargs=6)
    parser.add_argument("--depot", choices=["lite", "pg"], default="lite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--statements", type=int, default=150)
    parser.add_argument("--postgres")
    arguments = parser.parse_args()
    folders, (address_a, key_a, address_b, key_b) = arguments.places[:2], arguments.places[2:]
    tables = list(SETS)
    places = [(folder, twin, name) for twin, folder in zip("ab", folders) for name in tables]
    rows = lambda folder, twin, name: stored(arguments.depot, folder, twin, arguments.postgres, name)
    before = {place: hidden(rows(*place), *place[1:]) for place in places}
    for folder in folders:
        let_write(folder)
    clients = [governed.Client(address_a, "analyst", key_a), governed.Client(address_b, "analyst", key_b)]
    catalog, schema = twins.governed_place(arguments.depot)
    placed = lambda text: re.sub(r"\{(\w+)\}", rf"{catalog}.{schema}.\1", text)
    # The changed manifests are in force when both take a statement that changes nothing.
    deadline = time.monotonic() + 30
    for client in clients:
        while change(client, placed("UPDATE {notes} SET body = body WHERE person_id = -1"))[1] is not None:
            assert time.monotonic() < deadline, change(client, placed("UPDATE {notes} SET body = body WHERE person_id = -1"))
            time.sleep(0.05)
    grammar = twins.Grammar(arguments.seed)
    counts = Counter()
    for _ in range(arguments.statements):
        template = statement(grammar)
        sql = placed(template)
        answers = [change(client, sql) for client in clients]
        same = answers[0] == answers[1]
        if not same and answers[0][1] and answers[1][1]:
            # A message about a value names the first that was met.
            same = answers[0][1][0] == answers[1][1][0] and len({twins.VALUES.sub("VALUE", answer[1][1].replace(sql, "")) for answer in answers}) == 1
        if not same:
            print(f"DIVERGENCE in a change\n{sql}\n---- one\n{answers[0]}\n---- other\n{answers[1]}", flush=True)
            return 1
        counts["refused " + answers[0][1][0] if answers[0][1] else "changed rows" if answers[0][0] else "changed nothing"] += 1
        if answers[0][1] and not twins.HIDDEN.search(sql):
            assert not twins.HIDDEN.search(answers[0][1][1] + answers[1][1][1]), (sql, answers)
        for name in tables:
            if "{%s}" % name in template:
                seen = [twins.Answer(*client.run(placed("SELECT * FROM {%s}" % name if name != "people" else "SELECT id, name, city, level, region, risk, active, salary FROM {people}")), False) for client in clients]
                if seen[0].key() != seen[1].key():
                    print(f"DIVERGENCE in what is seen of {name} after\n{sql}\n{twins.first_difference(*seen)}", flush=True)
                    return 1
    for (folder, twin, name), kept in before.items():
        lost = kept - Counter(rows(folder, twin, name))
        if lost:
            print(f"HIDDEN ROWS of {name} in twin {twin} were changed:\n{list(lost)[:3]}", flush=True)
            return 1
    print(f"depot {arguments.depot}, seed {arguments.seed}: {dict(counts)}", flush=True)
    return 0 if counts["changed rows"] * 5 > arguments.statements else 1


if __name__ == "__main__":
    sys.exit(main())

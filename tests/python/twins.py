"""Runs the same statements as the same user on two servers whose data differ only in what that user must not know.

Usage: python twins.py [--depot files|lite|pg|mixed] [--seed N] [--statements N] [--no-pushdown] [--no-plans] [--eager] [--go-on] -- ADDRESS_A KEY_A ADDRESS_B KEY_B

With `--eager` depot `pg` computes all that it can; then enough statements must have their governed tables behind fences.
With `--no-pushdown` the governed depots filter and limit nothing by themselves; the open tables that their answers are compared with still do.
`mixed` is `pg` with the table of orders, the one that is worth several tasks, in `files`: then workers read PostgreSQL too.

The servers serve the twins that governed.py wrote; the keys are those of `analyst`. Rows, schemas, errors, plans and the history of
queries must be equal, to the byte where they are ordered. The plan of a join may differ for the sake of its rounded estimates, in one of
twenty plans at most. The same statements on the open tables that hold what the analyst should see must give the same rows. The first
divergence prints the smallest statement that shows it and both answers, and leaves with 1; `--go-on` looks for more.

Where an answer is not the same each time on one server (which of two failing rows comes first), all the answers that a server gives
in several attempts are compared.
"""

import argparse
import random
import re
import sys
from datetime import date

import governed
import shrink
from governed import Client

ATTEMPTS = 6


# ---- Statements by hand ------------------------------------------------------------------------------------------------

#: `{people}` and so on stand for tables. After ` --` stand flags: `ordered` rows are compared in their order; `random` means that the
#: rows depend on chance or on the number's token and have no plain counterpart.
BY_HAND = """
SELECT * FROM {notes}
SELECT id, name, email, phone, ssn, salary, born, seen, level, active, vip, region, risk, rating, badge, nick, secret, city FROM {people}
SELECT id, name FROM {people} ORDER BY id --ordered
SELECT id, length(card), card IS NULL FROM {people} --random
SELECT count(card), count(DISTINCT length(card)) FROM {people} --random
SELECT order_id, person_id, buyer, amount, price, qty, placed, due, paid, status, comment, region, channel, gone FROM {orders}
SELECT count(*) FROM {people}
SELECT count(*) FROM {orders}
SELECT count(*), count(secret), count(salary), count(name) FROM {people}
SELECT min(id), max(id), min(salary), max(salary), min(born), max(born), min(seen), max(seen), min(name), max(name) FROM {people}
SELECT min(order_id), max(order_id), min(price), max(price), min(amount), max(amount), min(placed), max(placed), min(due) FROM {orders}
SELECT min(person_id), max(person_id), min(region), max(region), max(status), max(gone) FROM {orders}
SELECT sum(salary), avg(salary), sum(amount), avg(qty) FROM {people}, {orders} WHERE id = order_id
SELECT region, status, count(*), sum(price) FROM {orders} GROUP BY region, status
SELECT region, status, channel, count(*) FROM {orders} GROUP BY ROLLUP (region, status, channel)
SELECT region, status, grouping(region), count(*) FROM {orders} GROUP BY GROUPING SETS ((region), (status), ())
SELECT salary, count(*) FROM {people} GROUP BY salary HAVING count(*) > 1
SELECT name, count(*) FROM {people} GROUP BY name ORDER BY count(*) DESC, name --ordered
SELECT DISTINCT level, active, vip FROM {people}
SELECT p.name, o.comment FROM {people} p JOIN {orders} o ON p.id = o.person_id
SELECT p.id, o.order_id FROM {people} p JOIN {orders} o ON p.badge = o.buyer
SELECT count(*) FROM {people} p JOIN {orders} o ON p.badge = o.buyer
SELECT p.id, o.order_id FROM {people} p LEFT JOIN {orders} o ON p.id = o.person_id AND o.amount > 100
SELECT p.id, o.order_id FROM {people} p RIGHT JOIN {orders} o ON p.id = o.person_id AND p.salary > 1000
SELECT p.id, o.order_id FROM {people} p FULL JOIN {orders} o ON p.id = o.person_id
SELECT p.id, n.body FROM {people} p FULL JOIN {notes} n ON p.id = n.person_id
SELECT r.title, count(o.order_id), max(o.price) FROM {regions} r LEFT JOIN {orders} o ON r.region = o.region GROUP BY r.title
SELECT r.title FROM {regions} r WHERE NOT EXISTS (SELECT 1 FROM {orders} o WHERE o.region = r.region)
SELECT r.title FROM {regions} r WHERE r.region NOT IN (SELECT region FROM {orders})
SELECT r.title FROM {regions} r WHERE r.region NOT IN (SELECT region FROM {people})
SELECT a.id, b.id FROM {people} a JOIN {people} b ON a.salary = b.salary AND a.id < b.id
SELECT a.id FROM {people} a WHERE EXISTS (SELECT 1 FROM {people} b WHERE b.email = a.email AND b.id <> a.id)
SELECT id FROM {people} WHERE id NOT IN (SELECT person_id FROM {orders} WHERE person_id IS NOT NULL)
SELECT id FROM {people} WHERE id IN (SELECT person_id FROM {orders} WHERE paid)
SELECT id, (SELECT max(price) FROM {orders} o WHERE o.person_id = p.id) FROM {people} p
SELECT id, (SELECT count(*) FROM {notes} n WHERE n.person_id = p.id) FROM {people} p
SELECT (SELECT name FROM {people})
SELECT (SELECT name FROM {people} WHERE id = 1), (SELECT count(*) FROM {people} WHERE risk = 0)
SELECT id FROM {people} UNION SELECT person_id FROM {orders}
SELECT region FROM {people} EXCEPT SELECT region FROM {regions}
SELECT region FROM {regions} EXCEPT SELECT region FROM {orders}
SELECT person_id FROM {orders} INTERSECT SELECT id FROM {people}
SELECT person_id FROM {orders} EXCEPT ALL SELECT id FROM {people}
SELECT id, row_number() OVER (ORDER BY id), lag(name) OVER (ORDER BY id), sum(salary) OVER (PARTITION BY level ORDER BY id) FROM {people}
SELECT id, rank() OVER (PARTITION BY active ORDER BY salary), ntile(4) OVER (ORDER BY id), count(*) OVER () FROM {people}
SELECT id, max(salary) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) FROM {people}
SELECT * FROM (SELECT id, row_number() OVER (PARTITION BY level ORDER BY salary DESC, id) AS n FROM {people}) AS x WHERE n <= 2
SELECT id FROM {people} ORDER BY salary DESC NULLS LAST, id LIMIT 5 --ordered
SELECT id FROM {people} ORDER BY secret, ssn, id LIMIT 7 OFFSET 3 --ordered
SELECT order_id FROM {orders} ORDER BY order_id DESC LIMIT 3 --ordered
SELECT price FROM {orders} ORDER BY price LIMIT 4 --ordered
SELECT order_id FROM {orders} WHERE order_id > 140 ORDER BY order_id LIMIT 20 --ordered
SELECT order_id FROM {orders} WHERE price >= 500.00
SELECT order_id FROM {orders} WHERE price > 500.25
SELECT count(*) FROM {orders} WHERE gone IS NOT NULL
SELECT count(*) FROM {orders} WHERE status IS NULL OR region IS NULL OR qty < 1
SELECT count(*) FROM {people} WHERE region <> 'EU'
SELECT count(*) FROM {people} WHERE risk = 0 OR risk IS NULL OR risk > 100 OR level > 3
SELECT count(*) FROM {people} WHERE salary > 700000000000000
SELECT count(*) FROM {people} WHERE born > DATE '1960-01-01' AND born <> DATE '1961-01-01'
SELECT id FROM {people} WHERE secret IS NULL AND vip
SELECT id FROM {people} WHERE ssn = 'hidden' AND rating > 1 AND nick LIKE 'x%'
SELECT id FROM {people} WHERE name LIKE 'A%' AND phone LIKE '%x'
SELECT id FROM {people} WHERE name LIKE '%kanari%' OR phone LIKE '%kanari%' OR nick LIKE '%kan%'
SELECT 1 / (id - 3) FROM {people}
SELECT id FROM {people} WHERE 1 / (id - 999) >= 0
SELECT id FROM {people} WHERE 10 / risk > 3
SELECT id, 100 / (risk - 50) FROM {people} WHERE risk <> 50
SELECT 1 / (salary - 1000) FROM {people}
SELECT id FROM {people} WHERE level = 99 AND 1 / (id - id) > 0
SELECT id FROM {people} WHERE CASE WHEN region = 'EU' THEN true ELSE 1 / (id - id) > 0 END
SELECT CAST(name AS INT) FROM {people}
SELECT CAST(region AS INT) FROM {people}
SELECT CAST(id AS TINYINT) FROM {people}
SELECT CAST(risk AS TINYINT) FROM {people}
SELECT CAST(level AS TINYINT), CAST(order_id AS SMALLINT) FROM {people}, {orders} WHERE id = order_id
SELECT id FROM {people} WHERE CAST(id AS SMALLINT) > 60
SELECT id FROM {people} WHERE CAST(level AS TINYINT) = 2
SELECT max(CAST(region AS INT)) FROM {orders}
SELECT p.id FROM {people} p LEFT JOIN {orders} o ON p.id = o.person_id AND 1 / o.qty > 0
SELECT p.id FROM {people} p LEFT JOIN {orders} o ON p.id = o.person_id AND CAST(o.status AS INT) > 0
SELECT sum(1 / qty) FROM {orders}
SELECT sum(price / qty) FROM {orders}
SELECT id * 9000000000000000000 FROM {people}
SELECT sum(id * 100000000000) FROM {people}
SELECT regexp_replace(region, '[', '') FROM {people}
SELECT to_date(status) FROM {orders}
SELECT count(*) FROM {people} GROUP BY 1 / (risk - 1)
SELECT count(*) FILTER (WHERE 1 / (level - 1) > 0) FROM {people}
WITH w AS (SELECT * FROM {people} WHERE active) SELECT count(*) FROM w a JOIN w b ON a.level = b.level
WITH RECURSIVE r AS (SELECT id AS n, 0 AS depth FROM {people} UNION ALL SELECT n + 1, depth + 1 FROM r WHERE depth < 2) SELECT depth, sum(n) FROM r GROUP BY depth
VALUES ((SELECT count(*) FROM {orders}), (SELECT max(id) FROM {people}))
SELECT v.n, count(p.id) FROM (VALUES (0), (1), (4), (50)) AS v(n) LEFT JOIN {people} p ON p.level = v.n GROUP BY v.n
SELECT p.id, l.m FROM {people} p, LATERAL (SELECT max(o.price) AS m FROM {orders} o WHERE o.person_id = p.id) l
SELECT array_agg(name ORDER BY id), string_agg(city, ',' ORDER BY id) FROM {people}
SELECT first_value(name ORDER BY id), last_value(name ORDER BY id), median(risk), approx_distinct(badge) FROM {people}
SELECT no_such_column FROM {people}
SELECT id + name FROM {people}
SELECT id FROM {people} WHERE id
SELECT p.id, o.*, region FROM {people} p JOIN {orders} o USING (region) WHERE p.id = o.order_id AND p.id < 20
SELECT status, count(DISTINCT person_id), count(DISTINCT buyer), count(DISTINCT comment) FROM {orders} GROUP BY status
SELECT date_trunc('year', placed), count(*) FROM {orders} GROUP BY 1
SELECT channel FROM {orders} WHERE channel > 'web' GROUP BY channel
SELECT channel FROM {orders} WHERE channel NOT LIKE 'web%'
SELECT order_id FROM {orders} WHERE region BETWEEN 'DK' AND 'EU' AND qty IN (1, 2, 0, -3)
""".strip().splitlines()

NESTED = """
SELECT event_id, person_id, kind, payload, tags, steps, region FROM {events}
SELECT event_id, device, device % 7 FROM {events} --random
SELECT person_id, address, labels, phones, blob, score FROM {profiles}
SELECT payload['geo']['city'], count(*), max(payload['size']) FROM {events} GROUP BY 1
SELECT region, kind, count(*) FROM {events} GROUP BY region, kind
SELECT min(region), max(region), min(event_id), max(event_id), min(payload['size']), max(payload['size']) FROM {events}
SELECT DISTINCT region FROM {events}
SELECT count(*) FROM {events} WHERE region = 'EU'
SELECT count(*) FROM {events} WHERE region > 'UK'
SELECT count(*) FROM {events} WHERE region IN ('NO', 'UK', 'kanariland')
SELECT event_id, unnest(tags) FROM {events}
SELECT event_id, s['code'], s['note'] FROM (SELECT event_id, unnest(steps) AS s FROM {events}) x
SELECT event_id FROM {events} WHERE payload['ip'] = 'REDACTED' AND payload['geo']['lat'] > 40
SELECT event_id FROM {events} WHERE CAST(payload['geo']['city'] AS INT) = 1
SELECT event_id, 10 / (payload['size'] - 100000) FROM {events}
SELECT array_to_string(tags, '|'), array_length(tags) FROM {events}
SELECT e.event_id, p.score FROM {events} e JOIN {profiles} p ON e.person_id = p.person_id
SELECT e.event_id, p.score FROM {events} e FULL JOIN {profiles} p ON e.person_id = p.person_id
SELECT address['country'], count(*), min(address['zip']), max(address['zip']), sum(score) FROM {profiles} GROUP BY address['country']
SELECT count(*) FROM {profiles} WHERE address['country'] = 'ZZ'
SELECT person_id, map_values(labels), map_keys(labels) FROM {profiles}
SELECT min(person_id), max(person_id), count(*), count(blob), min(score), max(score) FROM {profiles}
SELECT person_id FROM {profiles} WHERE score > 50 AND person_id < 40 ORDER BY person_id --ordered
SELECT person_id FROM {profiles} ORDER BY score DESC, person_id LIMIT 5 --ordered
SELECT person_id FROM {profiles} WHERE 1 / (score - 200) = 0
SELECT phones[1], count(*) FROM {profiles} GROUP BY phones[1]
""".strip().splitlines()

# ---- Statements by chance ----------------------------------------------------------------------------------------------

INT, TEXT, DECIMAL, DAY, MOMENT, BOOL, FLOAT = "int", "text", "decimal", "day", "moment", "bool", "float"
COLUMNS = {
    "people": {
        INT: ["id", "salary", "level", "risk"], TEXT: ["name", "email", "phone", "ssn", "badge", "nick", "secret", "city", "region"],
        BOOL: ["active", "vip"], DAY: ["born"], MOMENT: ["seen"], FLOAT: ["rating"], DECIMAL: [],
    },
    "orders": {
        INT: ["order_id", "person_id", "qty"], TEXT: ["buyer", "status", "comment", "region", "channel"], BOOL: ["paid"], DAY: ["due", "gone"],
        MOMENT: ["placed"], DECIMAL: ["amount", "price"], FLOAT: [],
    },
    "notes": {INT: ["person_id"], TEXT: ["owner", "body"], BOOL: [], DAY: [], MOMENT: [], DECIMAL: [], FLOAT: []},
    "regions": {INT: ["rank"], TEXT: ["region", "title"], BOOL: [], DAY: [], MOMENT: [], DECIMAL: [], FLOAT: []},
}
KEYS = {"people": "id", "orders": "order_id", "notes": "person_id", "regions": "region"}
LINKS = {("people", "orders"): [("id", "person_id"), ("badge", "buyer"), ("region", "region"), ("id", "order_id")], ("people", "notes"): [("id", "person_id")],
         ("orders", "notes"): [("person_id", "person_id")], ("orders", "regions"): [("region", "region")], ("people", "regions"): [("region", "region"), ("level", "rank")]}


class Grammar:
    """Random statements over the tables. Literals come from what is visible, and from what is hidden in either twin."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.values = {}
        for name in COLUMNS:
            for column in governed.TYPES[name]:
                seen = [row.get(column) for row in governed.plain(name)]
                hidden = [row[column] for twin in "ab" for row in governed.raw(name, twin)]
                self.values[name, column] = [list(dict.fromkeys(map(str, filter(lambda value: value is not None, values)))) for values in (seen, hidden)]

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, options):
        return self.random.choice(options)

    def column(self, scope, kind):
        """A column of this kind of one of the tables, as (expression, table, column)."""
        found = [(f"{alias}.{column}", name, column) for alias, name in scope for column in COLUMNS[name][kind]]
        return self.pick(found) if found else None

    def literal(self, kind, of=None):
        if of and self.chance(0.8):
            seen, hidden = self.values[of]
            values = hidden if hidden and (not seen or self.chance(0.5)) else seen
            if values:
                return self.written(kind, self.pick(values))
        match kind:
            case "int":
                return str(self.pick([0, 1, 2, 3, 10, 50, 1000, -1, 700_000_000_000_000, governed.FIRST]))
            case "decimal":
                return self.pick(["0.00", "100.00", "500.25", "500.26", "99.99"])
            case "float":
                return self.pick(["1.5e0", "0e0", "99.75e0"])
            case "text":
                return self.written(TEXT, self.pick(["", "EU", "hidden", "a", "Zz", "%"]))
            case "day":
                return f"DATE '{date(self.pick([1950, 1970, 1787, 2025]), self.random.randrange(1, 13), 1)}'"
            case "moment":
                return f"TIMESTAMP '{self.pick([2023, 2024, 1787])}-0{self.random.randrange(1, 10)}-01 00:00:00'"
            case _:
                return self.pick(["true", "false"])

    def written(self, kind, value):
        match kind:
            case "text":
                return "'" + value.replace("'", "''") + "'"
            case "day":
                return f"DATE '{value}'"
            case "moment":
                return f"TIMESTAMP '{value}'"
            case "float":
                return f"CAST({value} AS DOUBLE)"
            case "bool":
                return value.lower()
            case _:
                return value

    def expression(self, scope, kind, depth=2):
        found = self.column(scope, kind)
        if found is None or self.chance(0.08):
            return self.literal(kind)
        name = found[0]
        if depth == 0 or self.chance(0.45):
            return name
        inner = lambda kind: self.expression(scope, kind, depth - 1)
        match kind:
            case "int":
                other = self.pick([inner(INT), self.literal(INT, found[1:])])
                return self.pick([
                    f"({name} + {other})", f"({name} - {other})", f"({name} * 3)", f"({name} / {other})", f"({name} % {other})", f"abs({name})",
                    f"length({inner(TEXT)})", f"CAST({inner(TEXT)} AS BIGINT)", f"CAST({name} AS SMALLINT)", f"coalesce({name}, {other})",
                    f"CASE WHEN {self.predicate(scope, depth - 1)} THEN {name} ELSE {other} END", f"nullif({name}, {other})",
                    f"extract(year FROM {inner(DAY)})", f"greatest({name}, {other})", f"strpos({inner(TEXT)}, 'a')", f"TRY_CAST({inner(TEXT)} AS BIGINT)",
                ])
            case "text":
                return self.pick([
                    f"upper({name})", f"substr({name}, 1, {self.random.randrange(0, 4)})", f"substr({name}, 1, {self.literal(INT)})", f"concat({name}, '-', {inner(TEXT)})",
                    f"left({name}, 2)", f"right({name}, 1)", f"reverse({name})", f"coalesce({name}, {self.literal(TEXT, found[1:])})", f"CAST({inner(INT)} AS VARCHAR)",
                    f"regexp_replace({name}, '[a-z]', 'x')", f"CASE WHEN {self.predicate(scope, depth - 1)} THEN {name} END", f"nullif({name}, {self.literal(TEXT, found[1:])})",
                    f"md5({name})", f"CAST({inner(DAY)} AS VARCHAR)",
                ])
            case "decimal":
                return self.pick([f"({name} + {self.literal(DECIMAL)})", f"({name} * 2)", f"({name} / {inner(DECIMAL)})", f"CAST({name} AS DECIMAL(6, 1))", f"round({name}, 1)"])
            case "day":
                return self.pick([f"({name} + INTERVAL '1' DAY)", f"CAST(date_trunc('month', {name}) AS DATE)", f"CAST({inner(TEXT)} AS DATE)"])
            case "moment":
                return self.pick([f"date_trunc('day', {name})", f"({name} + INTERVAL '1' HOUR)", f"to_timestamp({inner(TEXT)})"])
            case "float":
                return self.pick([f"({name} * 2)", f"CAST({inner(INT)} AS DOUBLE)", f"({name} / {inner(FLOAT)})", f"sqrt({name})"])
            case _:
                return self.predicate(scope, depth - 1)

    def kind(self, scope):
        kinds = [kind for kind in (INT, INT, TEXT, TEXT, DECIMAL, DAY, MOMENT, BOOL, FLOAT) if self.column(scope, kind)]
        return self.pick(kinds)

    def predicate(self, scope, depth=2):
        kind = self.kind(scope)
        found = self.column(scope, kind)
        name, of = found[0], found[1:]
        choice = self.random.random()
        if depth > 0 and choice < 0.25:
            return f"({self.predicate(scope, depth - 1)} {self.pick(['AND', 'AND', 'OR'])} {self.predicate(scope, depth - 1)})"
        if depth > 0 and choice < 0.32:
            return f"(NOT {self.predicate(scope, depth - 1)})"
        if depth > 0 and choice < 0.42:
            return self.subquery_predicate(scope, name)
        if choice < 0.50:
            return f"{name} IS {self.pick(['', 'NOT '])}NULL"
        if kind == BOOL:
            return self.pick([name, f"{name} IS NOT TRUE", f"{name} = {self.literal(BOOL)}"])
        if choice < 0.62:
            values = ", ".join(self.literal(kind, of) for _ in range(self.random.randrange(1, 5)))
            return f"{name} {self.pick(['', 'NOT '])}IN ({values})"
        if choice < 0.70:
            return f"{name} BETWEEN {self.literal(kind, of)} AND {self.literal(kind, of)}"
        if kind == TEXT and choice < 0.82:
            pattern = self.literal(TEXT, of)[1:4].replace("'", "")
            return f"{name} {self.pick(['', 'NOT '])}LIKE '{self.pick(['', '%'])}{pattern}%'"
        operator = self.pick(["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"])
        left = self.expression(scope, kind, 1) if self.chance(0.4) else name
        right = self.expression(scope, kind, 1) if self.chance(0.25) else self.literal(kind, of)
        return f"{left} {operator} ({right})"

    def subquery_predicate(self, scope, name):
        other = self.pick(list(COLUMNS))
        inside = [("s", other)]
        where = self.predicate([*inside, *scope] if self.chance(0.3) else inside, 0)
        kinds = [kind for kind in COLUMNS[other] if COLUMNS[other][kind]]
        shared = [(f"s.{column}", mine) for kind in kinds if (mine := self.column(scope, kind)) for column in COLUMNS[other][kind]]
        column, (mine, _, _) = self.pick(shared)
        return self.pick([
            f"{self.pick(['', 'NOT '])}EXISTS (SELECT 1 FROM {{{other}}} s WHERE {column} = {mine} AND {where})",
            f"{mine} {self.pick(['', 'NOT '])}IN (SELECT {column} FROM {{{other}}} s WHERE {where})",
            f"{mine} = (SELECT {self.pick(['min', 'max'])}({column}) FROM {{{other}}} s WHERE {where})",
        ])

    def source(self):
        """FROM, and the tables in it."""
        name = self.pick(["people", "people", "orders", "orders", "notes"])
        if self.chance(0.5):
            return f"{{{name}}} a", [("a", name)]
        if self.chance(0.15):
            key = KEYS[name]
            return f"{{{name}}} a JOIN {{{name}}} b ON a.{key} = b.{key}", [("a", name), ("b", name)]
        (left, right), links = self.pick(list(LINKS.items()))
        mine, theirs = self.pick(links)
        join = self.pick(["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
        scope = [("a", left), ("b", right)]
        more = f" AND {self.predicate(scope, 0)}" if self.chance(0.4) else ""
        return f"{{{left}}} a {join} {{{right}}} b ON a.{mine} = b.{theirs}{more}", scope

    def statement(self):
        source, scope = self.source()
        where = f" WHERE {self.predicate(scope)}" if self.chance(0.7) else ""
        kinds = [self.kind(scope) for _ in range(self.random.randrange(1, 4))]
        shape = self.random.random()
        if shape < 0.45:
            items = [self.expression(scope, kind) for kind in kinds]
            listed = ", ".join(f"{item} AS c{index}" for index, item in enumerate(items))
            distinct = "DISTINCT " if self.chance(0.15) else ""
            text = f"SELECT {distinct}{listed} FROM {source}{where}"
            if self.chance(0.3):
                order = ", ".join(f"c{index}{self.pick(['', ' DESC', ' NULLS FIRST'])}" for index in range(len(items)))
                return f"{text} ORDER BY {order} LIMIT {self.pick([1, 3, 10, 1000])} --ordered"
            return text
        if shape < 0.75:
            keys = [self.expression(scope, kind, 1) for kind in kinds[:2]] if self.chance(0.7) else []
            exact = [kind for kind in kinds if kind in (INT, DECIMAL)]
            folds = ["count(*)", *(f"{self.pick(['min', 'max', 'count', 'count(DISTINCT'])}({self.expression(scope, kind, 1)})" for kind in kinds if kind != BOOL)]
            folds = [f"{fold})" if fold.startswith("count(DISTINCT") else fold for fold in folds]
            folds += [f"sum({self.expression(scope, kind, 1)})" for kind in exact[:1]]
            listed = ", ".join(f"{item} AS c{index}" for index, item in enumerate([*keys, *folds]))
            group = f" GROUP BY {', '.join(str(index + 1) for index in range(len(keys)))}" if keys else ""
            having = f" HAVING count(*) > {self.random.randrange(3)}" if self.chance(0.3) else ""
            return f"SELECT {listed} FROM {source}{where}{group}{having}"
        if shape < 0.88:
            kind = kinds[0]
            other, other_scope = self.source()
            if not self.column(other_scope, kind):
                return self.statement()
            operation = self.pick(["UNION", "UNION ALL", "EXCEPT", "INTERSECT"])
            return f"SELECT {self.expression(scope, kind, 1)} AS c0 FROM {source}{where} {operation} SELECT {self.expression(other_scope, kind, 1)} FROM {other}"
        keys = ", ".join(f"{alias}.{KEYS[name]}" for alias, name in scope)
        window = self.pick(["sum({})", "max({})", "count({})", "lag({})", "first_value({})"]).format(self.expression(scope, INT, 1))
        by = f"PARTITION BY {self.expression(scope, self.kind(scope), 0)} " if self.chance(0.5) else ""
        ties = ", ".join(f"{alias}.{column}" for alias, name in scope for columns in COLUMNS[name].values() for column in columns)
        return f"SELECT {keys}, {window} OVER ({by}ORDER BY {keys}, {ties}) AS w FROM {source}{where}"


# ---- Comparing ---------------------------------------------------------------------------------------------------------

#: What a plan may say that differs from one run to the next: how long things took, the planner's running numbers, where an open file lies.
UNSTEADY = [
    (governed.QUERY_ID, "QUERY"),
    (re.compile(r"\b\d+(\.\d+)?(ns|µs|μs|us|ms|s)\b"), "TIME"),
    (re.compile(r"(__common_expr_|__datafusion_extracted_|__correlated_sq_|__scalar_sq_)\d+"), r"\1N"),
    (re.compile(r"[^\[\s,]+/sources/(?=files/shop/regions\.csv|plain)"), "FOLDER/"),
]


#: The counters of a plan above the governed scans tell how visible rows were spread over threads, which is for chance and the files' layout
#: to decide. What came out of a governed scan is compared, unless a top-k's threshold, which moves with what was read first, went below.
COUNTERS = re.compile(r"(, filter=\[[^\]]*\])?, metrics=\[.*")


def steady(text):
    for pattern, replacement in UNSTEADY:
        text = pattern.sub(replacement, text)
    return text


def steady_plan(lines):
    limited = any("fetch=" in line or "Limit" in line for line in lines)
    return [COUNTERS.sub("", steady(line)) if limited or "GovernedScan" not in line else steady(line) for line in lines]


#: A message about a value names the first that was met, and which comes first is for chance and the files' layout to decide.
VALUES = re.compile(r"'[^']*'|-?\b\d+(\.\d+)?\b")
HIDDEN = re.compile(rf"kanari|{str(governed.FIRST)[:7]}|{governed.YEAR}-", re.IGNORECASE)


class Answer:
    """Everything that a client sees of a statement."""

    def __init__(self, table, error, ordered, plan=False):
        self.error, self.rows, self.schema = error, None, ""
        if table is not None:
            self.schema = table.schema.to_string(show_field_metadata=True, show_schema_metadata=True, truncate_metadata=False)
            # Sums of floating point numbers depend on their order.
            rows = [repr(tuple(f"{value:.9g}" if isinstance(value, float) else value for value in row)) for row in governed.rows_of(table)]
            if plan:
                rows = steady_plan(rows)
            self.rows = rows if ordered or plan else sorted(rows)

    def fails_like(self, other, sql):
        """Whether both are errors that differ only in a visible value."""
        if self.error is None or other.error is None or self.error[0] != other.error[0]:
            return False
        texts = [answer.error[1].replace(sql, "") for answer in (self, other)]
        return VALUES.sub("VALUE", texts[0]) == VALUES.sub("VALUE", texts[1]) and not any(HIDDEN.search(text) for text in texts)

    def key(self):
        return (self.error, self.schema, None if self.rows is None else tuple(self.rows))

    def __str__(self):
        if self.error is not None:
            return f"error {self.error[0]}: {self.error[1]}"
        text = "\n".join(self.rows[:40])
        return f"{len(self.rows)} rows\n{text}"


def first_difference(one, other):
    for index, (left, right) in enumerate(zip(one.rows or [], other.rows or [])):
        if left != right:
            return f"first difference in row {index}:\n  {left}\n  {right}"
    if one.schema != other.schema:
        return f"schemas differ:\n{one.schema}\n{other.schema}"
    return ""


class Twins:
    def __init__(self, a, b, depot, go_on, counts_fences=False):
        self.clients, self.depot, self.go_on, self.counts_fences = (a, b), depot, go_on, counts_fences
        self.counts = dict.fromkeys(["statements", "with rows", "errors", "plans", "other plans", "unsteady", "compared with plain", "plain fails where governed does not, or the other way"], 0)
        self.codes = {}
        self.failures = 0

    def text(self, template, plain=False):
        def place(name):
            catalog, schema = governed_place("files" if self.depot == "mixed" and name[1] == "orders" else self.depot)
            return f"{'plain' if plain else ''}{catalog}.{schema}.{name[1]}"

        return re.sub(r"\{(\w+)\}", place, template)

    def fail(self, what, sql, one, other):
        self.failures += 1
        if what == "between the twins":
            sql, one, other = self.smallest(sql, one, other)
        print(f"DIVERGENCE {what}\n{sql}\n---- one\n{one}\n---- other\n{other}\n{first_difference(one, other)}\n", flush=True)
        if not self.go_on:
            sys.exit(1)

    def smallest(self, sql, one, other):
        """The smallest statement whose answers differ as those of a statement do, in what is an error and what is not."""
        words = re.match(r"(EXPLAIN( ANALYZE| VERBOSE)?( \([^)]*\))? )?", sql)[0]
        failed = (one.error is None, other.error is None)
        last = [sql, one, other]

        def differs(rest):
            answers = [self.ask(index, words + rest, False, bool(words)) for index in (0, 1)]
            if answers[0].key() == answers[1].key() or answers[0].fails_like(answers[1], words + rest):
                return False
            if tuple(answer.error is None for answer in answers) != failed:
                return False
            last[:] = [words + rest, *answers]
            return True

        shrink.smallest(sql.removeprefix(words), differs)
        return last

    def ask(self, index, sql, ordered, plan=False):
        return Answer(*self.clients[index].run(sql), ordered, plan)

    def same(self, sql, ordered=False, plan=False):
        """The answer of one twin, after finding that the other gives the same."""
        one, other = self.ask(0, sql, ordered, plan), self.ask(1, sql, ordered, plan)
        if one.key() == other.key() or one.fails_like(other, sql):
            return one
        # Perhaps neither is steady: then each must give what the other gave, sooner or later.
        seen = ({one.key()}, {other.key()})
        for _ in range(ATTEMPTS):
            for index in (0, 1):
                seen[index].add(self.ask(index, sql, ordered, plan).key())
            if seen[0] & seen[1] and len(seen[0] | seen[1]) > 1 and (seen[0] == seen[1] or all(len(answers) > 1 for answers in seen)):
                self.counts["unsteady"] += 1
                return None
        if plan and one.error is None and other.error is None and sql.count(".".join(governed_place(self.depot))) > 1:
            # Which side of a join is read first is decided by estimates that include hidden rows. It must stay rare.
            self.counts["other plans"] += 1
            return None
        self.fail("between the twins", sql, one, other)
        return None

    def check(self, template, explain=()):
        template, _, flags = template.partition(" --")
        sql = self.text(template)
        self.counts["statements"] += 1
        answer = self.same(sql, "ordered" in flags)
        if answer is not None:
            self.counts["with rows" if answer.error is None else "errors"] += 1
            if answer.error is not None:
                self.codes[answer.error[0]] = self.codes.get(answer.error[0], 0) + 1
        for words in explain:
            self.counts["plans"] += 1
            self.same(f"{words} {sql}", plan=True)
        if self.counts_fences and answer is not None and answer.error is None:
            plan, _ = self.clients[0].run(f"EXPLAIN {sql}")
            self.counts["with fences"] = self.counts.get("with fences", 0) + ("GovernedStatement" in str(plan and plan.to_pylist()))
        if answer is not None and "random" not in flags:
            self.check_plain(template, answer, "ordered" in flags)

    def check_plain(self, template, answer, ordered):
        """The table that holds what the analyst should see gives the same rows."""
        other = self.ask(0, self.text(template, plain=True), ordered)
        if (answer.error is None) != (other.error is None):
            # A plan may look at a row that another plan has dropped before: whether that fails is not the policy's doing.
            self.counts["plain fails where governed does not, or the other way"] += 1
        elif answer.error is None:
            self.counts["compared with plain"] += 1
            if answer.rows != other.rows:
                self.fail("from the plain table", self.text(template), answer, other)

    def history(self):
        """What the analyst sees of the queries so far, where the twins differ."""
        place = ".".join(governed_place(self.depot))
        sql = f"SELECT state, query, tables, output_rows, error_code FROM system.runtime.queries WHERE query LIKE '%{place}.%' AND query NOT LIKE '%plain%'"
        # A statement may have been tried more often on one side; each counts once.
        records = [{row["query"]: row for row in client.run(sql)[0].to_pylist()} for client in self.clients]
        for sql in records[0].keys() & records[1].keys():
            one, other = ({key: VALUES.sub("VALUE", steady(str(value))) for key, value in records[index][sql].items()} for index in (0, 1))
            if one != other:
                yield sql, one, other


def governed_place(depot):
    return {"files": ("files", "shop"), "lite": ("lite", "main"), "pg": ("pg", "public"), "mixed": ("pg", "public")}[depot]


def switch_off(client, depots):
    """Switches push-down off for some depots of a session."""
    for depot in depots:
        _, error = client.run(f"SET SESSION {depot}.pushdown = false")
        assert error is None, error
        table, error = client.run(f"SHOW SESSION LIKE '{depot}.pushdown'")
        assert error is None and table.column("Value").to_pylist() == ["false"], (error, table)


#: So many statements must be computed by PostgreSQL with governed tables behind fences.
FEWEST_FENCES = 10

PLANS = [
    "EXPLAIN", "EXPLAIN (TYPE LOGICAL)", "EXPLAIN (FORMAT JSON)", "EXPLAIN (FORMAT GRAPHVIZ)", "EXPLAIN (TYPE LOGICAL, FORMAT JSON)", "EXPLAIN ANALYZE",
    "EXPLAIN (TYPE LOGICAL, FORMAT GRAPHVIZ)", "EXPLAIN (TYPE VALIDATE)", "EXPLAIN VERBOSE",
]

METADATA = [
    "SHOW CATALOGS", "SHOW SCHEMAS FROM {catalog}", "SHOW TABLES FROM {catalog}.{schema}", "DESCRIBE {catalog}.{schema}.people", "DESCRIBE {catalog}.{schema}.orders",
    "SELECT * FROM {catalog}.information_schema.tables", "SELECT * FROM {catalog}.information_schema.columns", "SELECT * FROM {catalog}.information_schema.schemata",
    "SELECT * FROM {catalog}.{schema}.payroll", "SELECT * FROM files.vault.gold",
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("servers", nargs=4)
    parser.add_argument("--depot", choices=["files", "lite", "pg", "mixed"], default="files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--statements", type=int, default=300)
    parser.add_argument("--no-pushdown", action="store_true")
    parser.add_argument("--no-plans", action="store_true", help="for twins whose numbers of rows differ so much that plans may be others")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--go-on", action="store_true")
    arguments = parser.parse_args()
    address_a, key_a, address_b, key_b = arguments.servers
    twins = Twins(Client(address_a, "analyst", key_a), Client(address_b, "analyst", key_b), arguments.depot, arguments.go_on, arguments.eager)

    catalog, schema = governed_place(arguments.depot)
    if arguments.no_pushdown:
        for client in twins.clients:
            switch_off(client, {catalog, "files"})
    if arguments.eager:
        for client in twins.clients:
            _, error = client.run("SET SESSION pg.join_pushdown_strategy = 'EAGER'")
            assert error is None, error
    for statement in METADATA:
        twins.same(statement.format(catalog=catalog, schema=schema))
    for template in BY_HAND + (NESTED if arguments.depot == "files" else []):
        twins.check(template, [] if arguments.no_plans else ["EXPLAIN", "EXPLAIN ANALYZE"])
    grammar = Grammar(arguments.seed)
    for number in range(arguments.statements):
        twins.check(grammar.statement(), [] if arguments.no_plans else [PLANS[number % len(PLANS)]])
    for sql, one, other in twins.history():
        twins.failures += 1
        print(f"DIVERGENCE in the history of queries\n{sql}\n---- one\n{one}\n---- other\n{other}\n", flush=True)
        if not arguments.go_on:
            sys.exit(1)
    print(f"depot {arguments.depot}, push-down {'off' if arguments.no_pushdown else 'on'}, seed {arguments.seed}: {twins.counts}, errors {dict(sorted(twins.codes.items()))}", flush=True)
    if twins.counts["other plans"] * 20 > twins.counts["plans"]:
        print("hidden rows decide too many plans", flush=True)
        return 1
    if twins.counts["with rows"] * 2 < twins.counts["statements"]:
        print("most statements fail: the test compares little but errors", flush=True)
        return 1
    if arguments.eager and twins.counts.get("with fences", 0) < FEWEST_FENCES:
        print("PostgreSQL computes too few statements behind fences", flush=True)
        return 1
    return 1 if twins.failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""The smallest statement that still shows something: clauses, operands and arguments are left out for as long as it does.

Usage: python shrink.py      tries itself on statements whose smallest form is known.
"""

import sys

import sqlglot
from sqlglot import exp

#: How many statements are tried at most.
ATTEMPTS = 400
#: Parts of a query that may be left out.
CLAUSES = ["where", "having", "order", "limit", "offset", "distinct", "group", "qualify", "with_", "with", "filter"]


def without(tree, node, change, dialect):
    """The statement in which one node is changed, or None where that makes no sense."""
    copy = tree.copy()
    twin = next((theirs for ours, theirs in zip(tree.walk(), copy.walk()) if ours is node), None)
    try:
        changed = change(twin)
        return None if changed is False else (changed if twin is copy and isinstance(changed, exp.Expression) else copy).sql(dialect=dialect)
    except Exception:  # noqa: BLE001 - whatever the tree cannot be is no candidate
        return None


def put(part):
    """Puts a part of a node in the node's place."""

    def change(node):
        inside = part(node)
        if inside is None:
            return False
        return node.replace(inside.copy()) if node.parent else inside.copy()

    return change


def changes(node):
    """What can be left out of one node, the most first."""
    if isinstance(node, exp.SetOperation):
        yield put(lambda node: node.this)
        yield put(lambda node: node.expression)
    if isinstance(node, exp.Query):
        for clause in CLAUSES:
            if node.args.get(clause):
                yield lambda node, clause=clause: node.set(clause, None)
    if isinstance(node, exp.Select):
        for index in range(len(node.args.get("joins") or [])):
            yield lambda node, index=index: node.args["joins"].pop(index) and None
        if len(node.expressions) > 1:
            for index in range(len(node.expressions)):
                yield lambda node, index=index: node.set("expressions", node.expressions[:index] + node.expressions[index + 1:])
    if isinstance(node, exp.Group) and len(node.expressions) > 1:
        for index in range(len(node.expressions)):
            yield lambda node, index=index: node.set("expressions", node.expressions[:index] + node.expressions[index + 1:])
    if isinstance(node, exp.Ordered) and isinstance(node.parent, exp.Order) and len(node.parent.expressions) > 1:
        yield lambda node: node.pop() and None
    if isinstance(node, exp.Join) and node.args.get("on"):
        yield lambda node: node.set("on", exp.true())
    if isinstance(node, (exp.Binary, exp.Connector)) and not isinstance(node, exp.Dot):
        yield put(lambda node: node.this)
        yield put(lambda node: node.expression)
    if isinstance(node, (exp.Not, exp.Paren, exp.Unary, exp.Cast, exp.Alias)):
        yield put(lambda node: node.this)
    if isinstance(node, exp.Func) and not isinstance(node, exp.Cast):
        for index in range(len(list(node.iter_expressions()))):
            yield put(lambda node, index=index: list(node.iter_expressions())[index])
    if isinstance(node, exp.In) and len(node.expressions) > 1:
        for index in range(len(node.expressions)):
            yield lambda node, index=index: node.set("expressions", node.expressions[:index] + node.expressions[index + 1:])


def candidates(sql, dialect):
    tree = sqlglot.parse_one(sql, dialect=dialect)
    seen = {sql}
    for node in tree.walk():
        for change in changes(node):
            candidate = without(tree, node, change, dialect)
            if candidate and candidate not in seen and len(candidate) < len(sql):
                seen.add(candidate)
                yield candidate


def smallest(sql, shows, dialect="trino"):
    """The smallest statement found for which `shows` is true, given one for which it is."""
    attempts = 0
    progress = True
    while progress and attempts < ATTEMPTS:
        progress = False
        try:
            found = list(candidates(sql, dialect))
        except sqlglot.errors.SqlglotError:
            return sql
        # The shortest first: what leaves out most.
        for candidate in sorted(found, key=len):
            attempts += 1
            if attempts > ATTEMPTS:
                break
            if shows(candidate):
                sql, progress = candidate, True
                break
    return sql


def main():
    long = (
        "SELECT a.name, max(b.salary + 1), count(*) FROM people a JOIN orders b ON a.id = b.id AND b.x > 3 "
        "WHERE a.region IN ('EU', 'UK') AND NOT (a.level = 2 OR a.secret > 7) GROUP BY a.name HAVING count(*) > 2 ORDER BY 1 LIMIT 5"
    )
    for shows, expected in [
        (lambda sql: "secret" in sql and "people" in sql, 60),
        (lambda sql: "salary" in sql, 60),
        (lambda sql: "JOIN" in sql and "orders" in sql, 75),
        (lambda sql: "HAVING" in sql, 70),
    ]:
        found = smallest(long, shows)
        assert shows(found) and len(found) <= expected, found
        print(found)
    union = "SELECT id FROM people WHERE x = 1 UNION SELECT id FROM orders WHERE price > 3"
    assert smallest(union, lambda sql: "price" in sql) in ("SELECT id FROM orders WHERE price", "SELECT id FROM orders WHERE price > 3"), smallest(union, lambda sql: "price" in sql)
    assert smallest("not sql at all (", lambda sql: True) == "not sql at all ("
    return 0


if __name__ == "__main__":
    sys.exit(main())

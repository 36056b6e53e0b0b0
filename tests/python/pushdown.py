"""Random statements on databases: the rows are the same with push-down, without it, and by the database's own client.

Usage: python pushdown.py --minerva PROGRAM [--depots postgresql,sqlite] [--postgresql PORT] [--mariadb PORT|SOCKET] [--statements N] [--seed N] [--only N] [--go-on]

Starts that Minerva over a new database `pushdown` of each server, and over a SQLite file. Without `--postgresql` a private server is started;
with it, one on this machine that trusts `reader`, who may make databases. `pushdown_dialects.py` has the tables, and the words of each
database; `pushdown_grammar.py` makes the statements.

With as much push-down as there is and without any, columns with their types and rows must be equal to the last bit (in their order, where there is one), or both must
fail with one code; a statement that may fail on rows that a plan may leave out is compared only where both succeed. Where the database means the
same as Minerva, which its words say, its own client must give the same values. The first divergence of each sort prints the smallest statement
that shows it with both answers; the code is 1 if there was any. `--only N` runs the statement of that number alone; `--go-on`
makes each divergence small, and the statements that both refuse.
"""

import argparse
import importlib.util
import re
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import governed
import minerva_server
import shrink
import sqlglot
from pushdown_dialects import DIALECTS, KNOWN_ERRORS, Otherwise, canonical, for_minerva, known
from pushdown_grammar import statements
from sqlglot import exp

THREADS = 3
#: Of so many statements one is asked how much of it the database computes.
EXPLAINED = 3
#: The codes of what the engine should be able to do, and is not.
ENGINE_FAILS = {"GENERIC_INTERNAL_ERROR", "INVALID_ARGUMENT"}
#: What statements for the database are made of, and how that is seen in them.
PARTS = {"join": r" (LEFT |RIGHT |)JOIN ", "full join": " FULL JOIN ", "group": " GROUP BY |count|COUNT", "order": " ORDER BY .* LIMIT", "offset": r" LIMIT \d+ OFFSET", "window": r" OVER \(",
         "subquery": r"EXISTS \(SELECT| IN \(SELECT", "union": " UNION ALL "}
ON_OFF, OWN = "with and without push-down", "Minerva and the database's own client"


class Answer:
    """Rows with their types, or an error's code and text."""

    def __init__(self, table, error, ordered):
        self.error, self.table, self.rows, self.schema = error, table, None, None
        if table is not None:
            self.schema = [(field.name, str(field.type)) for field in table.schema]
            self.raw = governed.rows_of(table)
            rows = [repr(row) for row in self.raw]
            self.rows = rows if ordered else sorted(rows)

    def same(self, other):
        if self.error is not None or other.error is not None:
            return self.error is not None and other.error is not None and self.error[0] == other.error[0]
        return self.schema == other.schema and self.rows == other.rows

    def __str__(self):
        if self.error is not None:
            return f"error {self.error[0]}: {self.error[1][:600]}"
        return f"{len(self.rows)} rows of {self.schema}\n" + "\n".join(self.rows[:20])


def values(rows, schema, ordered):
    """Rows as both sides can write them."""
    rows = [repr(tuple(canonical(value, kind) for value, kind in zip(row, schema))) for row in rows]
    return rows if ordered else sorted(rows)


class Session:
    """The three clients of one thread."""

    def __init__(self, address, key, dialect):
        self.dialect = dialect
        self.on, self.off = (governed.Client(address, "admin", key) for _ in range(2))
        for client in (self.on, self.off):
            self.must(client, f"USE {dialect.depot}.{dialect.schema}")
        # All that the depot can do, whatever it costs; a plan that stays in part is a part of the same.
        strategy = f"{dialect.depot}.join_pushdown_strategy"
        if self.must(self.on, f"SHOW SESSION LIKE '{strategy}'").num_rows:
            self.must(self.on, f"SET SESSION {strategy} = 'EAGER'")
        self.must(self.off, f"SET SESSION {dialect.depot}.pushdown = false")
        for client, expected in ((self.on, "true"), (self.off, "false")):
            shown = self.must(client, f"SHOW SESSION LIKE '{dialect.depot}.pushdown'").column("Value").to_pylist()
            assert shown == [expected], shown
        self.own = dialect.client()

    @staticmethod
    def must(client, sql):
        table, error = client.run(sql)
        assert error is None, (sql, error)
        return table

    def ask(self, client, template, ordered):
        return Answer(*client.run(for_minerva(template)), ordered)

    def pushed(self, template):
        """What the database is asked for beyond scans; nothing where it is asked for none."""
        table, error = self.on.run(f"EXPLAIN {for_minerva(template)}")
        return "" if error is not None else "\n".join(re.findall(", sql=.*", "\n".join(str(value) for column in table.columns for value in column.to_pylist())))

    def compare(self, template, ordered=False, may_fail=False, own=True):
        """(what it came to, what diverges or None, both answers)."""
        if reason := known(template):
            return f"known: {reason}", None, None, None
        on, off = self.ask(self.on, template, ordered), self.ask(self.off, template, ordered)
        for answer in (on, off):
            if answer.error and any(text in answer.error[1] for text in KNOWN_ERRORS):
                return "known: an error of one plan", None, None, None
        if off.error and off.error[0] in ENGINE_FAILS and not on.error:
            # The engine cannot do the statement, and the database can: its rows are compared with its own client alone.
            off = on
        if may_fail and (on.error or off.error):
            return "may fail, and did", None, on, off
        if not on.same(off):
            return "different", ON_OFF, on, off
        if on.error:
            return "both fail", None, on, off
        if may_fail or not own:
            return "equal", None, on, off
        try:
            sql = self.dialect.render(template)
        except Otherwise as word:
            return f"not comparable: {str(word).lower()}", None, on, off
        rows, error = self.dialect.run(self.own, sql)
        if error is not None:
            if any(refusal in error for refusal in self.dialect.refusals):
                return "not comparable: refused", None, on, off
            return "different", OWN, on, f"{sql}\nerror: {error}"
        kinds = list(off.table.schema.types)
        ours, theirs = values(off.raw, kinds, ordered), values(rows, kinds, ordered)
        if ours == theirs:
            return "comparable", None, on, off
        return "different", OWN, "\n".join([f"{len(ours)} rows", *first_different(ours, theirs)]), "\n".join([sql, f"{len(theirs)} rows", *first_different(theirs, ours)])


def first_different(rows, others):
    """The first rows that the others have not, or the first of all where they have them in another order or number."""
    only = [row for row in rows if row not in set(others)]
    return (only or rows)[:8]


# ---- The smallest statement --------------------------------------------------------------------------------------------


def is_determined(template):
    """Whether every LIMIT has an order of all that is selected, or rows are only counted: a smaller statement may have lost that."""
    tree = sqlglot.parse_one(template, dialect="postgres")
    for query in tree.find_all(exp.Query):
        if query.args.get("limit") or query.args.get("offset"):
            names = {item.alias_or_name for item in query.selects}
            order = query.args.get("order")
            ordered = {name.name for item in (order.expressions if order else []) for name in item.find_all(exp.Column)}
            counted = isinstance(query.parent, exp.Subquery) and isinstance(query.parent.parent, exp.From) and "count(*)" == query.parent.parent.parent.selects[0].unalias().sql().lower()
            if not names <= ordered and not counted:
                return False
        if any(item.find(exp.Star) and not isinstance(item.unalias(), exp.Count) for item in query.selects):
            return False
    # What depends on the order of a window must have had it.
    return all(window.args.get("order") for window in tree.find_all(exp.Window) if isinstance(window.this, (exp.RowNumber, exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue)) or "ntile" in window.sql().lower())


#: How long a statement is made smaller, and how many rows a smaller one may have.
SHRINK_SECONDS, SHRINK_ROWS = 60, 3000
LEAVES = re.compile(r"m_(?:t|ok|zero|nan|lit_\w+)\(([^()]*)\)", re.IGNORECASE)


def keeps_words(template, original):
    """Whether all that must stand in a macro, since databases mean otherwise by it alone, still does."""
    leaves, rest = set(LEAVES.findall(original)), LEAVES.sub("", template)
    return not any(re.search(rf"(?<!\w){re.escape(leaf)}(?!\w)", rest) for leaf in leaves) and not re.search(r"ORDER BY (?!m_)|, (?!m_)[\w.]+( DESC)?( LIMIT|$)", rest, re.IGNORECASE)


def reason_of(text):
    """What an error says, without what it says about the one statement."""
    return re.sub(r"(\d|\[c?\d|`| ')+.*", "", text[:200])


def smallest_failing(session, template):
    """The smallest statement that is refused for the same reason."""
    expected = session.ask(session.on, template, False).error
    until = time.monotonic() + SHRINK_SECONDS

    def shows(template):
        if time.monotonic() > until:
            return False
        error = session.ask(session.on, template, False).error
        return error is not None and error[0] == expected[0] and reason_of(error[1]) == reason_of(expected[1])

    return shrink.smallest(template, shows, "postgres")


def smallest(session, statement, sort, pair):
    last = [statement.template, *pair]
    failed = isinstance(pair[0], Answer) and [answer.error is None for answer in pair]
    own_failed = isinstance(pair[1], str) and "\nerror: " in pair[1]
    until = time.monotonic() + SHRINK_SECONDS
    for client in (session.on, session.off):
        session.must(client, f"SET SESSION query_max_rows = {SHRINK_ROWS}")

    def shows(template):
        try:
            if time.monotonic() > until or not is_determined(template) or not keeps_words(template, statement.template):
                return False
            ordered = statement.ordered and "ORDER BY" in template and bool(sqlglot.parse_one(template, dialect="postgres").args.get("order"))
            if statement.ordered and not ordered and not sort:
                return False
            found = [session.compare(template, ordered) for _ in range(2)]
        except Exception:  # noqa: BLE001 - whatever cannot be said is no candidate
            return False
        for _, its, one, other in found:
            if its != sort or (failed and [answer.error is None for answer in (one, other)] != failed) or own_failed != (isinstance(other, str) and "\nerror: " in other):
                return False
        last[:] = [template, *found[0][2:]]
        return True

    shrink.smallest(statement.template, shows, "postgres")
    return last


#: Statements that were once answered wrongly with push-down, or refused, of whatever seed they came.
FOUND = [
    # MariaDB's hash tables have no NULLs.
    "SELECT a1.id, a2.id FROM parts AS a1 LEFT JOIN parts AS a2 ON (a1.num IS NOT DISTINCT FROM a2.price)",
    "SELECT a1.id, a2.id FROM parts AS a1 JOIN parts AS a2 ON (a1.id = a2.id AND a1.num IS NOT DISTINCT FROM a2.price)",
    # There is no text that is a UUID where it is made of a label and a UUID.
    "SELECT a1.id, a2.id FROM few AS a1 JOIN twice AS a2 ON TRUE WHERE COALESCE(a2.mood, a2.uid) IS NULL",
    "SELECT a1.id, CASE WHEN a1.i > 0 THEN a1.mood ELSE a1.uid END FROM parts AS a1 WHERE CASE WHEN a1.i > 0 THEN a1.mood ELSE a1.uid END IS NOT NULL",
    # Two that were refused together where each was taken.
    "SELECT string_agg(a1.word, ',' ORDER BY a1.word), string_agg(a1.uid, ',' ORDER BY a1.uid DESC), a1.i FROM parts AS a1 GROUP BY 3",
    "SELECT string_agg(a1.word, ',' ORDER BY a1.word), string_agg(a1.word, ',' ORDER BY a1.word DESC) FROM parts AS a1",
]


# ---- Running -----------------------------------------------------------------------------------------------------------


def run_depot(address, key, dialect, seed, numbers, count, go_on):
    """Whether all is equal."""
    sessions, local, made = [], threading.local(), statements(f"{dialect.name} {seed}", count, dialect)

    def session():
        if not hasattr(local, "session"):
            local.session = Session(address, key, dialect)
            sessions.append(local.session)
        return local.session

    def check(number):
        statement = made[number]
        asked = number % EXPLAINED == 0 and not statement.may_fail
        pushed.extend([session().pushed(statement.template)] if asked else [])
        return number, session().compare(statement.template, statement.ordered, statement.may_fail)

    begun = time.monotonic()
    outcomes, rows, codes, divergences, pushed = {}, 0, {}, {}, []
    with ThreadPoolExecutor(THREADS) as pool:
        for number, (outcome, sort, one, other) in pool.map(check, numbers):
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            rows += isinstance(one, Answer) and bool(one.rows)
            if isinstance(one, Answer) and one.error and outcome == "both fail":
                codes.setdefault(one.error[0], []).append((number, one.error[1]))
            if sort:
                divergences.setdefault(sort, []).append((number, one, other))
    seconds = time.monotonic() - begun
    for template in FOUND:
        outcome, sort, one, other = session().compare(template, own=False)
        if outcome != "equal":
            divergences.setdefault(sort or "what was found before", []).append((template, one, other))
    for sort, found in divergences.items():
        for number, one, other in found if go_on else found[:1]:
            template = number
            if isinstance(number, int):
                template, one, other = smallest(sessions[-1], made[number], sort, (one, other))
            print(f"DIVERGENCE of {sort}: depot {dialect.name}, seed {seed}, statement {number}\n{for_minerva(template)}\n---- one\n{one}\n---- other\n{other}\n", flush=True)
    # What was compared with the database's own client, whether or not it was equal.
    compared = outcomes.get("comparable", 0) + len(divergences.get(OWN, []))
    different = sum(map(len, divergences.values()))
    total = len(numbers)
    print(f"depot {dialect.name}, seed {seed}: {total} statements in {seconds:.0f} s, {rows} with rows, {compared} comparable ({100 * compared / total:.0f} %), {different} different "
          f"({', '.join(f'{len(found)} {sort}' for sort, found in divergences.items()) or 'none'})", flush=True)
    computed = sum(map(bool, pushed))
    parts = {part: sum(bool(re.search(pattern, text)) for text in pushed) for part, pattern in PARTS.items()}
    print(f"  {computed} of {len(pushed)} explained statements are computed by the database, wholly or in part; with {parts}")
    print(f"  {dict(sorted(outcomes.items(), key=lambda pair: -pair[1]))}", flush=True)
    for code, found in codes.items():
        print(f"  both fail with {code}: {len(found)}, such as", flush=True)
        # What is refused for one reason is told once.
        for number, text in {reason_of(text): (number, text) for number, text in found}.values():
            print(f"    statement {number}: {text[:300]}", flush=True)
            if go_on:
                print(f"      {for_minerva(smallest_failing(sessions[-1], made[number].template))}", flush=True)
    print(f"  statements that diverge: { {sort: [number for number, _, _ in found][:20] for sort, found in divergences.items()} }" if different else "  none diverges", flush=True)
    enough = True
    if total >= 100:
        for share, least, what in [(compared, 0.6, "comparable"), (rows, 0.5, "with rows"), (total - sum(map(len, codes.values())), 0.97, "successful")]:
            if share < least * total:
                print(f"only {share} of {total} statements are {what}: the test compares too little", flush=True)
                enough = False
        if computed < dialect.pushed * len(pushed):
            print(f"only {computed} of {len(pushed)} explained statements are pushed down: the test compares too little", flush=True)
            enough = False
    if total >= 1000:
        for part in [part for part, count in parts.items() if count == 0 and part not in dialect.without]:
            print(f"no explained statement has a part of it pushed down with {part}: the test compares too little", flush=True)
            enough = False
    return enough and not different


def private_postgres(folder):
    """A server as the benchmarks start it, whose administrator is `reader`."""
    found = importlib.util.spec_from_file_location("postgres", Path(__file__).parents[2] / "benches" / "postgres.py")
    benches = importlib.util.module_from_spec(found)
    found.loader.exec_module(benches)
    server = benches.Server(folder)
    server.call("createuser", "-h", "127.0.0.1", "-p", server.port, "-U", "admin", "-s", "reader")
    return server


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minerva", required=True)
    parser.add_argument("--depots", default="postgresql,sqlite")
    parser.add_argument("--postgresql", help="the port of a running server")
    parser.add_argument("--mariadb", help="the port or the socket of a running server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--statements", type=int, default=1000)
    parser.add_argument("--only", type=int)
    parser.add_argument("--go-on", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.depots.split(",")) - set(DIALECTS)
    if unknown:
        parser.error(f"no depot {', '.join(sorted(unknown))}; there are {', '.join(DIALECTS)}")
    server = None
    with tempfile.TemporaryDirectory(prefix="minerva-pushdown-") as folder, tempfile.TemporaryDirectory(prefix="minerva-pushdown-pg-") as data:
        try:
            if "postgresql" in arguments.depots and not arguments.postgresql:
                server = private_postgres(Path(data))
                arguments.postgresql = server.port
            dialects = [DIALECTS[name](Path(folder), getattr(arguments, name, None)) for name in arguments.depots.split(",")]
            minerva = minerva_server.Server(arguments.minerva, folder)
            for dialect in dialects:
                dialect.load()
            (Path(folder) / "resources/pushdown.yaml").write_text("---\n".join(dialect.manifest() for dialect in dialects))
            with minerva:
                numbers = range(arguments.statements) if arguments.only is None else [arguments.only]
                count = max(numbers) + 1
                equal = [run_depot(minerva.addresses["flight"], minerva.keys["admin"], dialect, arguments.seed, numbers, count, arguments.go_on) for dialect in dialects]
        finally:
            if server is not None:
                server.stop()
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())

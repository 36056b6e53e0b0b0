"""Random statements over the tables of pushdown_dialects.py, the same for the same seed. Their rows are determined, whoever computes them.

What the statements leave out, so that an answer is one: sums of floating point numbers that depend on their order (columns that are summed are
multiples of a quarter), LIMIT without an order of everything that is selected (unless rows are only counted), arithmetic that may overflow or
divide by zero (but in the small group of statements that `may_fail`).
"""

import random
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from pushdown_dialects import AT, ATX, BOOL, COLUMNS, DAY, DAYX, FLOAT, FLOATX, FLOATZ, INT, INTX, NUM, NUMX, RAW, TABLES, TEXT, TZ, Otherwise, known, rows_of_table

#: Columns whose values are ASCII's.
ASCII = {"word", "uid", "mood"}
KINDS = [INT] * 6 + [TEXT] * 6 + [NUM] * 3 + [FLOAT] * 2 + [DAY] * 2 + [AT] * 2 + [BOOL] * 2 + [INTX, NUMX, FLOATX, FLOATX, FLOATZ, DAYX, ATX, TZ, RAW]
#: What tables are joined on.
KEYS = [("id", "id"), ("id", "id"), ("Group", "Group"), ("id", "Group"), ("id", "big"), ("small", "Group"), ("day", "day"), ("at", "at"), ("tz", "tz"), ("word", "word"), ("word", "ci"),
        ("name", "name"), ("name", "ci"), ("ci", "ci"), ("vc", "word"), ("ch", "word"), ("ch", "vc"), ("uid", "uid"), ("num", "num"), ("price", "num"), ("f", "f"), ("r", "f"), ("f_nan", "f_nan"),
        ("f_zero", "f_zero"), ("raw", "raw"), ("int_x", "int_x"), ("int_x", "big_x"), ("big_x", "big_x"), ("num_x", "num_x"), ("day_x", "day_x"), ("at_x", "at_x"), ("mood", "word")]
#: What a window looks at beside a row.
FRAMES = ["ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING", "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", "ROWS BETWEEN CURRENT ROW AND 2 FOLLOWING",
          "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"]
#: Keys that few rows share.
FINE = [("id", "id"), ("id", "Group"), ("Group", "id"), ("id", "big"), ("day", "day"), ("word", "name")]


@dataclass
class Column:
    """Something to select from: its text, its kind, and the column of a table that it is, if it is one."""

    text: str
    kind: str
    origin: str | None = None


@dataclass
class Statement:
    template: str
    ordered: bool = False
    may_fail: bool = False


def leaf(alias, name, kind, origin=None):
    text = f'{alias}."{name}"' if name != name.lower() else f"{alias}.{name}"
    match kind:
        case "text":
            text = f"m_t({text})"
        case "floatz":
            text = f"m_zero({text})"
        case "floatx":
            text = f"m_nan({text})"
        case "bool":
            text = f"m_ok({text})"
    return Column(text, kind, origin)


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


VALUES = {name: list(dict.fromkeys(row[name] for table, count in TABLES.items() for row in rows_of_table(table, count) if row[name] is not None)) for name in COLUMNS}


class Grammar:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.aliases = 0
        self.ctes = []

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, options):
        return self.random.choice(options)

    def alias(self):
        self.aliases += 1
        return f"a{self.aliases}"

    # ---- Literals ------------------------------------------------------------------------------------------------------

    def literal(self, kind, origin=None):
        if origin is None or COLUMNS[origin] != kind or self.chance(0.2):
            origin = self.pick([name for name, its in COLUMNS.items() if its == kind])
        value = self.pick(VALUES[origin])
        beside = self.chance(0.3)
        match kind:
            case "int" | "intx":
                if kind == INTX and value in (-(2**63), -(2**31)):
                    # The smallest number has no literal: it is the negative of one that is too large.
                    return str(value + 1)
                return str(value + self.pick([-1, 1]) if beside and abs(value) < 2**31 else value)
            case "num":
                return f"m_lit_num('{value + Decimal('0.25') if beside else value:.2f}')"
            case "numx":
                return f"m_lit_numx('{value:f}')"
            case "float" | "floatz":
                return f"m_lit_{'zero' if kind == FLOATZ else 'float'}('{value!r}')"
            case "floatx":
                return self.pick(["m_lit_float('1.5')", "m_lit_float('3.0')", "m_lit_float('-2.25')", "m_lit_special('NaN')", "m_lit_special('Infinity')", "m_lit_special('-Infinity')"])
            case "text":
                value = value + self.pick([" ", "a", "z", "y" * 300]) if beside else value
                return f"m_lit_text({quoted(value)})"
            case "day" | "dayx":
                return f"m_lit_day('{value + timedelta(days=1) if beside and value.year < 9999 else value}')"
            case "at":
                return f"m_lit_at('{value.isoformat(' ', 'seconds')}')"
            case "atx":
                return f"m_lit_atx('{value.isoformat(' ', 'microseconds')}')"
            case "tz":
                return f"m_lit_tz('{value.isoformat(' ', 'seconds')}')"
            case "raw":
                return f"m_lit_raw('{value.hex()}')"
            case _:
                return self.pick(["true", "false"])

    # ---- Expressions ---------------------------------------------------------------------------------------------------

    def column(self, scope, kind):
        found = [column for column in scope if column.kind == kind]
        return self.pick(found) if found else None

    def kind(self, scope):
        there = {column.kind for column in scope}
        return self.pick([kind for kind in KINDS if kind in there])

    def expression(self, scope, kind, depth=2):
        """A template of this kind over columns of the scope."""
        found = self.column(scope, kind)
        if kind == BOOL and (found is None or self.chance(0.4)) and depth > 0:
            return self.predicate(scope, depth - 1)
        if found is None or self.chance(0.05):
            return self.literal(kind)
        name = found.text
        if depth == 0 or self.chance(0.4):
            return name
        inner = lambda kind: self.expression(scope, kind, depth - 1)
        other = lambda: self.pick([inner(kind), self.literal(kind, found.origin)])
        number = lambda: self.random.randrange(1, 10)
        anything = [lambda: f"coalesce({name}, {other()})", lambda: f"CASE WHEN {self.predicate(scope, depth - 1)} THEN {name} ELSE {other()} END",
                    lambda: f"CASE WHEN {self.predicate(scope, depth - 1)} THEN {name} END", lambda: f"nullif({name}, {other()})"]
        match kind:
            case "int":
                special = [
                    lambda: f"({name} + {inner(INT)})", lambda: f"({name} - {inner(INT)})", lambda: f"({name} * {number()})", lambda: f"m_div({name}, nullif({inner(INT)}, 0))",
                    lambda: f"m_div({name}, {number()})", lambda: f"m_mod({name}, nullif({inner(INT)}, 0))", lambda: f"m_mod({name}, {number()})", lambda: f"abs({name})", lambda: f"(- {name})",
                    lambda: f"m_length({inner(TEXT)})", lambda: f"m_strpos({inner(TEXT)}, {self.pick(['a', 'b', 'é', ' '])!r})", lambda: f"m_bigint({inner(INT)})",
                    lambda: f"m_int_of_float({inner(FLOAT)})", lambda: f"m_part('{self.pick(['year', 'month', 'day', 'doy', 'dow', 'quarter'])}', {inner(DAY)})",
                    lambda: f"m_part('{self.pick(['year', 'hour', 'minute', 'day'])}', {inner(AT)})", lambda: f"m_part('{self.pick(['year', 'hour'])}', {inner(TZ)})",
                    lambda: f"m_{self.pick(['greatest', 'least'])}({name}, {inner(INT)})", lambda: f"m_int_of_num({inner(NUM)})",
                ]
            case "num":
                special = [
                    lambda: f"({name} + {inner(NUM)})", lambda: f"({name} - {inner(NUM)})", lambda: f"m_mul_num({name}, {number()})", lambda: f"m_mul_num({name}, {self.column(scope, NUM).text})",
                    lambda: f"m_round_num({name})", lambda: f"abs({name})", lambda: f"m_num({inner(INT)})", lambda: f"m_div_num({name}, nullif({self.column(scope, NUM).text}, m_lit_num('0.00')))",
                    lambda: f"({name} + {inner(INT)})", lambda: f"m_{self.pick(['greatest', 'least'])}({name}, {inner(NUM)})",
                ]
            case "float":
                special = [
                    lambda: f"({name} + {inner(FLOAT)})", lambda: f"({name} - {inner(FLOAT)})", lambda: f"({name} * m_lit_float('{self.pick([2.0, 4.0, 0.5])}'))",
                    lambda: f"({name} / m_lit_float('4.0'))", lambda: f"m_round(abs({name}))", lambda: f"m_floor({name})", lambda: f"m_ceil(abs({name}))", lambda: f"m_double({inner(INT)})",
                ]
            case "text":
                lower = self.pick(["lower", "upper"]) + ("_ascii" if found.origin in ASCII else "")
                special = [
                    lambda: f"m_{lower}({name})", lambda: f"m_{lower}({name})", lambda: f"m_substr({name}, {self.random.randrange(1, 4)}, {self.random.randrange(0, 4)})",
                    lambda: f"m_left({name}, {self.random.randrange(0, 4)})", lambda: f"m_right({name}, {self.random.randrange(1, 4)})", lambda: f"m_reverse({name})",
                    lambda: f"m_sha({name})",
                    lambda: f"m_{self.pick(['trim', 'ltrim', 'rtrim'])}({name})", lambda: f"m_concat({name}, {inner(TEXT)})", lambda: f"m_join({name}, {inner(TEXT)})",
                    lambda: f"m_replace({name}, {self.pick(['a', 'b', ' ', 'é'])!r}, {self.pick(['', 'x', 'aa'])!r})", lambda: f"m_text_of_int({inner(INT)})", lambda: f"m_text_of_num({inner(NUM)})",
                    lambda: f"m_text_of_day({inner(DAY)})", lambda: f"m_text_of_bool({inner(BOOL)})", lambda: f"m_text_other({inner(self.pick([AT, FLOAT, TZ]))})",
                ]
            case "day":
                special = [
                    lambda: f"m_add_days({name}, {number()})", lambda: f"m_sub_days({name}, {number()})", lambda: f"m_add_months({name}, {number()})",
                    lambda: f"m_trunc_day('{self.pick(['month', 'year', 'quarter', 'week'])}', {name})", lambda: f"m_day_of_at({inner(AT)})",
                ]
            case "at":
                special = [lambda: f"m_trunc_at('{self.pick(['month', 'year', 'day', 'hour', 'week'])}', {name})", lambda: f"m_add_hours({name}, {number()})", lambda: f"m_at_of_day({inner(DAY)})"]
            case _:
                special = []
        return self.pick(special if special and self.chance(0.75) else anything)()

    # ---- Conditions ----------------------------------------------------------------------------------------------------

    def predicate(self, scope, depth=2):
        kind = self.kind(scope)
        found = self.column(scope, kind)
        name, origin = found.text, found.origin
        choice = self.random.random()
        if depth > 0 and choice < 0.22:
            return f"({self.predicate(scope, depth - 1)} {self.pick(['AND', 'AND', 'OR'])} {self.predicate(scope, depth - 1)})"
        if depth > 0 and choice < 0.28:
            return f"(NOT {self.predicate(scope, depth - 1)})"
        if choice < 0.36:
            return f"({self.expression(scope, kind, min(depth, 1))} IS {self.pick(['', 'NOT '])}NULL)"
        if kind == BOOL:
            return self.pick([name, f"({name} IS NOT TRUE)", f"({name} IS TRUE)", f"({name} IS FALSE)", f"({name} = {self.literal(BOOL)})", f"m_distinct({name}, {self.literal(BOOL)})"])
        if choice < 0.48:
            values = [self.literal(kind, origin) for _ in range(self.random.randrange(1, 5))] + (["NULL"] if self.chance(0.1) else [])
            return f"({name} {self.pick(['', '', 'NOT '])}IN ({', '.join(values)}))"
        if choice < 0.56:
            return f"({name} {self.pick(['', '', 'NOT '])}BETWEEN {self.literal(kind, origin)} AND {self.literal(kind, origin)})"
        if kind == TEXT and choice < 0.75:
            pattern = self.pick(VALUES[origin or "word"])
            start = self.random.randrange(0, 2)
            pattern = self.pick(["", "%", "_", "%"]) + pattern[start : start + 3].replace("\\", "\\\\").replace("%", self.pick(["%", "\\%"])) + self.pick(["%", "", "_"])
            ilike = "m_ilike_ascii" if origin in ASCII else "m_ilike"
            return f"{'NOT ' if self.chance(0.25) else ''}{ilike if self.chance(0.25) else 'm_like'}({self.expression(scope, TEXT, 1) if self.chance(0.3) and ilike == 'm_ilike' else name}, {quoted(pattern)})"
        left = self.expression(scope, kind, min(depth, 1)) if self.chance(0.5) else name
        # Numbers of different types are compared too.
        other = {INT: [INT, INT, INT, INTX, NUM, FLOAT], INTX: [INTX, INT], NUM: [NUM, NUM, INT], FLOAT: [FLOAT, FLOAT, INT], DAY: [DAY], AT: [AT]}.get(kind, [kind])
        right = self.expression(scope, self.pick(other), min(depth, 1)) if self.chance(0.35) else self.literal(kind, origin)
        operator = self.pick(["=", "=", "<>", "<", "<=", ">", ">=", "m_distinct", "m_same"])
        return f"{operator}({left}, {right})" if operator.startswith("m_") else f"({left} {operator} {right})"

    def subquery_predicate(self, scope):
        """EXISTS, IN, a comparison with a scalar subquery; with or without a correlation."""
        name, alias = self.table()
        inside = self.columns_of(name, alias)
        where = f" AND {self.predicate(inside, 1)}" if self.chance(0.5) else ""
        kind = self.kind([column for column in scope if self.column(inside, column.kind)])
        mine, theirs = self.column(scope, kind).text, self.column(inside, kind).text
        shape = self.random.random()
        if shape < 0.45:
            extra = ""
            if self.chance(0.25):
                extra = f" AND {self.column(inside, INT).text} {self.pick(['<', '<>', '>='])} {self.expression(scope, INT, 0)}"
            return f"{self.pick(['', 'NOT '])}EXISTS (SELECT 1 FROM {name} {alias} WHERE {theirs} = {mine}{where}{extra})"
        if shape < 0.8:
            selected = self.expression(inside, kind, 1) if self.chance(0.3) else theirs
            where = f" WHERE {self.predicate(inside, 1)}" if self.chance(0.5) else ""
            if self.chance(0.3):
                where += f"{' AND' if where else ' WHERE'} {theirs} IS NOT NULL"
            return f"({mine} {self.pick(['', 'NOT '])}IN (SELECT {selected} FROM {name} {alias}{where}))"
        kind = self.pick([INT, NUM, TEXT, DAY])
        if not self.column(scope, kind) or not self.column(inside, kind):
            return self.predicate(scope, 1)
        correlated = self.scalar(scope, kind)
        return f"({self.column(scope, kind).text} {self.pick(['=', '<', '>=', '<>'])} {correlated})"

    def scalar(self, scope, kind):
        """A subquery with one value."""
        name, alias = self.table()
        inside = self.columns_of(name, alias)
        if not self.column(inside, kind):
            return self.literal(kind)
        value = f"{self.pick(['min', 'max'])}({self.expression(inside, kind, 1)})" if kind != INT or self.chance(0.6) else self.pick(["count(*)", f"m_sum_int({self.column(inside, INT).text})"])
        keys = [kind for kind in (INT, INT, TEXT, DAY) if self.column(inside, kind) and self.column(scope, kind)]
        conditions = [self.predicate(inside, 0)] if self.chance(0.4) else []
        if keys and self.chance(0.5):
            key = self.pick(keys)
            conditions.append(f"{self.column(inside, key).text} = {self.column(scope, key).text}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"(SELECT {value} FROM {name} {alias}{where})"

    # ---- Tables --------------------------------------------------------------------------------------------------------

    def table(self):
        return self.pick(["items", "items", "parts", "parts", "few", "twice", *(["empty"] if self.chance(0.3) else [])]), self.alias()

    def columns_of(self, name, alias):
        return [leaf(alias, column, kind, column) for column, kind in COLUMNS.items()]

    def derived(self, depth):
        """A table that is a query, and its columns."""
        alias = self.alias()
        if self.ctes and self.chance(0.7):
            name, outputs = self.pick(self.ctes)
            return f"{name} {alias}", [leaf(alias, column, kind) for column, kind in outputs]
        text, outputs = self.query(depth - 1)
        if self.chance(0.25):
            # Databases do not agree on what a name is in such an order: a column of a table, or what is selected.
            names = ", ".join(name for name, _ in outputs)
            text = f"SELECT {names} FROM ({text}) {self.alias()} ORDER BY {self.order(outputs)} LIMIT {self.pick([1, 5, 20])}{self.pick(['', ' OFFSET 2'])}"
        return f"({text}) {alias}", [leaf(alias, column, kind) for column, kind in outputs]

    def source(self, depth):
        """The text of FROM, its columns, and the text of a row's identity where it has one."""
        choice = self.random.random()
        if depth > 0 and choice < 0.16:
            text, scope = self.derived(depth)
            if self.chance(0.6):
                return text, scope, None
            kinds = [kind for kind in (INT, TEXT, DAY) if self.column(scope, kind)]
            if not kinds:
                return text, scope, None
            name, alias = self.table()
            more = self.columns_of(name, alias)
            kind = self.pick(kinds)
            join = self.pick(["JOIN", "LEFT JOIN", "RIGHT JOIN", "JOIN"])
            return f"{text} {join} {name} {alias} ON {self.column(scope, kind).text} = {self.column(more, kind).text}", scope + more, None
        name, alias = self.table()
        text, scope = f"{name} {alias}", self.columns_of(name, alias)
        identity = [f"{alias}.id"] if name != "twice" else None
        if choice < 0.55:
            return text, scope, identity
        aliases = [alias]
        for number in range(1 if self.chance(0.75) else 2):
            name, alias = self.table()
            keys = self.pick(KEYS if number == 0 else FINE)
            if self.chance(0.5):
                keys = keys[::-1]
            mine, theirs = leaf(self.pick(aliases), keys[0], COLUMNS[keys[0]]).text, leaf(alias, keys[1], COLUMNS[keys[1]]).text
            join = self.pick(["JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
            scope = scope + self.columns_of(name, alias)
            condition = f"m_same({mine}, {theirs})" if self.chance(0.07) else f"{mine} = {theirs}"
            if self.chance(0.3):
                condition += f" AND {self.predicate(scope, 1)}"
            text = f"{text} {join} {name} {alias} ON {condition}"
            aliases.append(alias)
            identity = None if identity is None or name == "twice" else [*identity, f"{alias}.id"]
        return text, scope, identity

    # ---- Queries -------------------------------------------------------------------------------------------------------

    def order(self, outputs, shuffle=True):
        names = [name for name, _ in outputs]
        if shuffle:
            self.random.shuffle(names)
        return ", ".join(f"m_{self.pick(['up', 'up', 'down', 'up_first', 'down_last'])}({name})" for name in names)

    def fold(self, scope, kind):
        """An aggregate with a result of this kind."""
        value = lambda kind: self.expression(scope, kind, 1)
        some = lambda: self.expression(scope, self.kind(scope), 1)
        extreme = lambda: f"{self.pick(['min', 'max'])}({value(kind)})"
        match kind:
            case "int":
                return self.pick([
                    lambda: "count(*)", lambda: f"count({some()})", lambda: f"count(DISTINCT {some()})", lambda: f"count(DISTINCT {some()})", lambda: f"m_sum_int({value(INT)})", extreme,
                    lambda: f"m_count_if({self.predicate(scope, 1)})", lambda: f"m_sum_int_if({value(INT)}, {self.predicate(scope, 1)})", lambda: f"m_sum_int_distinct({value(INT)})",
                    lambda: f"m_fold_if({self.pick(['min', 'max', 'count'])}, {value(INT)}, {self.predicate(scope, 1)})",
                ])()
            case "num":
                return self.pick([lambda: f"sum({value(NUM)})", extreme, lambda: f"m_fold_if(sum, {value(NUM)}, {self.predicate(scope, 1)})"])()
            case "float":
                return self.pick([lambda: f"m_sum_float({value(FLOAT)})", extreme])()
            case "numx":
                return self.pick([extreme, lambda: f"sum(m_wide({value(INTX)}))", lambda: f"m_avg_num({value(NUM)})"])()
            case "floatx":
                return self.pick([
                    lambda: f"m_{self.pick(['min', 'max'])}_nan({value(FLOATX)})", lambda: f"m_avg({value(FLOAT)})", lambda: f"m_avg_int({value(INT)})", lambda: f"m_avg_intx({value(INTX)})",
                    lambda: f"m_avg_int_if({value(INT)}, {self.predicate(scope, 1)})", lambda: f"m_avg_int_distinct({value(INT)})", lambda: f"m_avg_intx_distinct({value(INTX)})",
                ])()
            case "text":
                return self.pick([extreme, extreme, lambda: f"m_fold_if({self.pick(['min', 'max'])}, {value(TEXT)}, {self.predicate(scope, 1)})", lambda: f"m_list({self.expression(scope, TEXT, 0)})"])()
            case "bool" | "raw":
                return f"m_{self.pick(['min', 'max'])}_{kind}({value(kind)})"
            case _:
                return extreme()

    def window(self, scope, kind, identity):
        part = f"PARTITION BY {self.expression(scope, self.kind(scope), 0)} " if self.chance(0.5) else ""
        # DataFusion has no windows over an order of bytes.
        by = self.expression(scope, self.kind([column for column in scope if column.kind != RAW] or [Column("1", INT)]), 0)
        up = self.pick(["up", "down", "up_first", "down_last"])
        ordered = f"({part}ORDER BY m_{up}({by}))"
        value = self.expression(scope, kind, 1)
        if kind in (BOOL, RAW):
            return value
        unique = f"({part}ORDER BY m_{up}({by}), {', '.join(f'm_up({name})' for name in identity)})" if identity else None
        if unique and self.chance(0.4):
            # Which row is beside another is known only in an order without equals.
            framed = f"({unique[1:-1]} {self.pick(FRAMES)})"
            return self.pick([f"lag({value}) OVER {unique}", f"lag({value}, 2) OVER {unique}", f"lead({value}) OVER {unique}", f"first_value({value}) OVER {unique}",
                              f"last_value({value}) OVER {framed}", f"first_value({value}) OVER {framed}", f"{self.pick(['min', 'max'])}({value}) OVER {framed}"])
        if kind == NUM and self.chance(0.5):
            return f"sum({value}) OVER {ordered}"
        if kind == FLOATX and self.chance(0.7):
            number = self.pick([INT, INT, INTX])
            frame = f"({unique[1:-1]} {self.pick(FRAMES)})" if unique and self.chance(0.6) else ordered
            return f"m_avg_over{'x' if number == INTX else ''}({self.expression(scope, number, 1)}) OVER {frame}"
        if kind == INT:
            # Numbers of rows have no sign in Minerva, and what they are computed with becomes a decimal.
            options = [f"m_bigint(rank() OVER {ordered})", f"m_bigint(dense_rank() OVER {ordered})", f"count({value}) OVER {ordered}", f"m_bigint(sum({value}) OVER {ordered})", f"m_bigint(sum({value}) OVER ({part.strip()}))",
                       f"max({value}) OVER {ordered}", "count(*) OVER ()"]
            if unique:
                framed = f"({unique[1:-1]} {self.pick(FRAMES)})"
                options += [f"m_bigint(row_number() OVER {unique})", f"m_bigint(row_number() OVER {unique})", f"m_bigint(ntile(3) OVER {unique})",
                            f"m_bigint(sum({value}) OVER {framed})", f"count({value}) OVER {framed}", f"count(*) OVER {framed}"]
            return self.pick(options)
        return f"{self.pick(['min', 'max'])}({value}) OVER {ordered}"

    def firsts(self, scope, identity, source, where, items, names):
        """The rows that are among the first of their kind."""
        by = self.expression(scope, self.kind([column for column in scope if column.kind not in (RAW, BOOL)]), 0)
        part = f"PARTITION BY {self.expression(scope, self.kind(scope), 0)} " if self.chance(0.6) else ""
        order = f"({part}ORDER BY m_{self.pick(['up', 'down', 'up_first', 'down_last'])}({by})"
        if identity and self.chance(0.6):
            number = f"row_number() OVER {order}, {', '.join(f'm_up({name})' for name in identity)})"
        else:
            number = f"{self.pick(['rank', 'dense_rank'])}() OVER {order})"
        inner, alias = self.alias(), self.alias()
        condition = self.pick([f"{inner}.n <= {self.pick([1, 2, 3, 10])}", f"{inner}.n = 1", f"{inner}.n > 2", f"{inner}.n BETWEEN 2 AND 4"])
        text = f"SELECT {', '.join(names)} FROM (SELECT {self.listed(items, names)}, {number} AS n FROM {source}{where}) {inner} WHERE {condition}"
        return f"SELECT {', '.join(names)} FROM ({text}) {alias}" if self.chance(0.2) else text

    def core(self, depth, kinds):
        """One SELECT whose outputs have these kinds."""
        source, scope, identity = self.source(depth)
        conditions = [self.predicate(scope)] if self.chance(0.55) else []
        if self.chance(0.22):
            conditions.append(self.subquery_predicate(scope))
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        shape = self.random.random()
        names = [f"c{index}" for index in range(len(kinds))]
        if shape < 0.46:
            items = [self.scalar(scope, kind) if kind in (INT, TEXT, NUM, DAY) and self.chance(0.06) else self.expression(scope, kind) for kind in kinds]
            distinct = "DISTINCT " if self.chance(0.2) else ""
            return f"SELECT {distinct}{self.listed(items, names)} FROM {source}{where}"
        if shape < 0.82:
            keyed = [self.chance(0.5) for _ in kinds]
            items = [self.expression(scope, kind, 1) if key else self.fold(scope, kind) for kind, key in zip(kinds, keyed)]
            # A literal is no key, and a number would be taken for a position.
            keys = [str(index + 1) for index, key in enumerate(keyed) if key]
            group = f" GROUP BY {', '.join(keys)}" if keys else ""
            if not keys and self.chance(0.15):
                group = f" GROUP BY {self.column(scope, self.kind(scope)).text}"
            having = ""
            if self.chance(0.3):
                kind = self.pick([kind for kind in (INT, INT, INT, NUM, TEXT, DAY) if self.column(scope, kind)] or [INT])
                having = f" HAVING {self.fold(scope, kind)} {self.pick(['>', '<=', '<>'])} {self.pick(['0', '1', '3']) if kind == INT else self.literal(kind)}"
                named = [(item, kind) for item, kind, key in zip(items, kinds, keyed) if key and kind in (INT, NUM, TEXT, DAY)]
                if named and self.chance(0.5):
                    item, kind = self.pick(named)
                    having += f" {self.pick(['OR', 'AND'])} {item} {self.pick(['=', '<', '<>'])} {self.literal(kind)}"
            return f"SELECT {self.listed(items, names)} FROM {source}{where}{group}{having}"
        if shape < 0.88 and any(column.kind not in (RAW, BOOL) for column in scope):
            return self.firsts(scope, identity, source, where, [self.expression(scope, kind, 1) for kind in kinds], names)
        items = [self.window(scope, kind, identity) if self.chance(0.6) else self.expression(scope, kind, 1) for kind in kinds]
        return f"SELECT {self.listed(items, names)} FROM {source}{where}"

    def listed(self, items, names):
        return ", ".join(f"{item} AS {name}" for item, name in zip(items, names))

    def plain(self, kinds):
        """Columns of a table."""
        name, alias = self.table()
        scope = self.columns_of(name, alias)
        where = f" WHERE {self.predicate(scope, 0)}" if self.chance(0.3) else ""
        return f"SELECT {self.listed([self.column(scope, kind).text for kind in kinds], [f'c{index}' for index in range(len(kinds))])} FROM {name} {alias}{where}"

    def query(self, depth, kinds=None):
        """A query and its outputs as (name, kind)."""
        is_plain = kinds is None and self.chance(0.08)
        if is_plain:
            kinds = [self.pick([INT, INT, TEXT, TEXT, NUM, DAY]) for _ in range(self.random.randrange(1, 3))]
        kinds = kinds or [self.pick(KINDS) for _ in range(self.random.randrange(1, 5))]
        outputs = [(f"c{index}", kind) for index, kind in enumerate(kinds)]
        operation = self.pick(["UNION", "UNION ALL", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL"])
        if is_plain:
            return f"{self.plain(kinds)} {operation} {self.plain(kinds)}", outputs
        if depth > 0 and self.chance(0.13):
            return f"{self.core(depth - 1, kinds)} {operation} {self.core(depth - 1, kinds)}", outputs
        return self.core(depth, kinds), outputs

    def failing(self):
        """A statement that may fail, or may not: that depends on which rows are looked at."""
        source, scope, _ = self.source(0)
        number, text = self.column(scope, INT).text, self.column(scope, TEXT).text
        item = self.pick([f"10 / {number}", f"{number} % {self.column(scope, INT).text}", f"CAST({text} AS INT)", f"CAST({self.column(scope, INTX).text} AS SMALLINT)",
                          f"{self.column(scope, INTX).text} * 3", f"sum({self.column(scope, INTX).text})", f"CAST({text} AS DATE)", f"CAST({self.column(scope, NUMX).text} AS DECIMAL(12, 2))"])
        where = f" WHERE {self.predicate(scope, 1)}" if self.chance(0.6) else ""
        return Statement(f"SELECT {item} AS c0 FROM {source}{where}", may_fail=True)

    def statement(self):
        if self.chance(0.03):
            return self.failing()
        if self.chance(0.04):
            text, _ = self.query(1)
            return Statement(f"SELECT count(*) AS c0 FROM ({text} LIMIT {self.pick([0, 1, 7, 50])}{self.pick(['', ' OFFSET 3'])}) {self.alias()}")
        if self.chance(0.04):
            kinds = [INT, self.pick([INT, TEXT, NUM, DAY])]
            order = self.order([(f"c{index}", kind) for index, kind in enumerate(kinds)])
            return Statement(f"{self.plain(kinds)} ORDER BY {order} LIMIT {self.pick([1, 5, 20])} OFFSET {self.pick([1, 3, 20])}", True)
        beginning = ""
        if self.chance(0.1):
            text, outputs = self.query(1)
            beginning = f"WITH w AS ({text}) "
            self.ctes.append(("w", outputs))
        text, outputs = self.query(2)
        ordered = self.chance(0.45)
        if ordered:
            text += f" ORDER BY {self.order(outputs)}"
            if self.chance(0.75):
                text += f" LIMIT {self.pick([1, 1, 3, 10, 10, 1000, 0])}{self.pick(['', '', '', ' OFFSET 2', ' OFFSET 7'])}"
        return Statement(beginning + text, ordered)


#: How many statements are made until they are such that the database means the same, if that is possible.
COMPARABLE, ATTEMPTS = 0.7, 25


def is_comparable(statement, dialect):
    try:
        dialect.render(statement.template)
    except Otherwise:
        return False
    return not statement.may_fail and not known(statement.template)


def statements(seed, count, dialect):
    """Each has a seed of its own, so that any can be made again alone."""
    made = []
    for number in range(count):
        statement = Grammar(f"{seed} {number}").statement()
        attempt = 0
        while random.Random(f"{seed} {number}").random() < COMPARABLE and attempt < ATTEMPTS and not is_comparable(statement, dialect):
            attempt += 1
            statement = Grammar(f"{seed} {number} {attempt}").statement()
        made.append(statement)
    return made

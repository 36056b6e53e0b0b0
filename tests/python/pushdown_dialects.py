"""The databases that pushdown.py compares with: the same tables in each, its words for each macro of a statement, and its client.

A statement is written once, with macros such as `m_part('year', a.day)` where systems differ in words or in meaning. `MACROS` says what stands
for a macro in Minerva and in each database; where a database means otherwise it says None, and a statement with that macro is not compared
with the database's own client. Everything else in a statement means the same everywhere.

A further database is one more class here, and one more column in `MACROS`.
"""

import math
import random
import re
import sqlite3
import struct
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import sqlglot
from sqlglot import exp

# ---- The tables --------------------------------------------------------------------------------------------------------

#: The kinds of values. Those with an X are extremes and curiosities, which are compared, ordered and counted, and never computed with.
INT, NUM, FLOAT, TEXT, DAY, AT, BOOL = "int", "num", "float", "text", "day", "at", "bool"
INTX, NUMX, FLOATX, FLOATZ, DAYX, ATX, TZ, RAW = "intx", "numx", "floatx", "floatz", "dayx", "atx", "tz", "raw"

#: Column, kind. `f_nan` has NaN and infinities, `f_zero` both zeros. Every table has them all.
COLUMNS = {
    "id": INT, "Group": INT, "small": INT, "i": INT, "big": INT, "int_x": INTX, "big_x": INTX, "num": NUM, "price": NUM, "num_x": NUMX, "f": FLOAT, "r": FLOAT,
    "f_nan": FLOATX, "f_zero": FLOATZ, "word": TEXT, "name": TEXT, "ci": TEXT, "vc": TEXT, "ch": TEXT, "uid": TEXT, "mood": TEXT, "day": DAY, "day_x": DAYX,
    "at": AT, "at_x": ATX, "tz": TZ, "ok": BOOL, "raw": RAW,
}
#: How many rows. The rows of `twice` have no identity and some are there several times.
TABLES = {"items": 60, "parts": 45, "few": 15, "twice": 30, "empty": 0}
MOODS = ["sad", "ok", "happy", "Zen"]

WORDS = ["", "a", "A", "b", "ab", "AB", "abc", "b a", "zebra", "Zoo", "under_score", "100%", "it's", "back\\slash", 'quo"te', "a ", " a", "banana", "10", "9", "-1", "NULL"]
NAMES = [*WORDS[:9], "é", "e\u0301", "É", "eclair", "éclair", "straße", "strasse", "STRASSE", "İstanbul", "istanbul", "ΣΑΣ", "σας", "😀", "a😀b", "naïve", "z", "Ångström", "ﬁ", "\u00a0", "ab\tc", "ab\nc"]
PADDED = ["", "a", "ab", "AB", "ab c", "b", "é", "  a", "long one"]
INSENSITIVE = ["abc", "ABC", "Abc", "abd", "É", "é", "e", "E", "", "a", "A", "straße", "STRASSE", "ab ", "ab"]


def rows_of_table(name, count):
    """The rows of a table, as Python's values."""
    chance = random.Random(f"rows of {name}")

    def sometimes(value, nulls=0.12):
        return None if chance.random() < nulls else value

    def quarter(limit):
        return Decimal(chance.randrange(-limit * 4, limit * 4 + 1)) / 4

    rows = []
    for number in range(1, count + 1):
        moment = datetime(2020, 1, 1) + timedelta(seconds=chance.randrange(0, 4 * 366 * 86_400))
        row = {
            "id": number,
            "Group": sometimes(chance.randrange(0, 9)),
            "small": sometimes(chance.randrange(-12, 13)),
            "i": sometimes(chance.choice([0, 1, -1, 7, chance.randrange(-1000, 1000)])),
            "big": sometimes(chance.choice([chance.randrange(0, 40), chance.randrange(-(10**6), 10**6)])),
            "int_x": sometimes(chance.choice([2**31 - 1, -(2**31), 0, 1, -1, 2**31 - 2])),
            "big_x": sometimes(chance.choice([2**63 - 1, -(2**63), 0, 1, -1, 2**53 + 1, 2**53, 2**31])),
            "num": sometimes(chance.choice([Decimal(0), quarter(5), quarter(2000)])),
            "price": sometimes(Decimal(chance.choice([0, 1, 999, 1005, chance.randrange(-10**6, 10**6)])) / 100),
            "num_x": sometimes(chance.choice([Decimal("9999999999999999999999999999.9999999999"), Decimal("-9999999999999999999999999999.9999999999"),
                                              Decimal("0.0000000001"), Decimal("-0.0000000001"), Decimal(0), Decimal("12345678901234567890.5")])),
            "f": sometimes(float(chance.choice([quarter(4), quarter(1000)]))),
            "r": sometimes(float(quarter(100))),
            "f_nan": sometimes(chance.choice([math.nan, math.inf, -math.inf, 1.5, -2.25, 1e300, 5e-324, 3.0])),
            "f_zero": sometimes(chance.choice([0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324])),
            "word": sometimes(chance.choice(WORDS)),
            "name": sometimes(chance.choice(NAMES)),
            "ci": sometimes(chance.choice(INSENSITIVE)),
            "vc": sometimes(chance.choice(WORDS + ["ab  ", "é"])),
            "ch": sometimes(chance.choice(PADDED)),
            "uid": sometimes(f"{chance.choice('0af')}0000000-0000-4000-8000-00000000000{chance.randrange(0, 4)}"),
            "mood": sometimes(chance.choice(MOODS)),
            "day": sometimes(chance.choice([moment.date(), date(2024, 2, 29), date(2023, 1, 31), date(1969, 12, 31)])),
            "day_x": sometimes(chance.choice([date(1, 1, 1), date(9999, 12, 31), date(1582, 10, 10), date(1970, 1, 1), moment.date()])),
            "at": sometimes(chance.choice([moment, datetime(2024, 2, 29), datetime(1969, 12, 31, 23, 59, 59), datetime(2023, 1, 31, 12)])),
            "at_x": sometimes(chance.choice([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999), datetime(1969, 12, 31, 23, 59, 59, 999_999), moment.replace(microsecond=1)])),
            "tz": sometimes(chance.choice([moment, datetime(2024, 3, 31, 1, 30), datetime(2024, 10, 27, 0, 30)])),
            "ok": sometimes(chance.random() < 0.5),
            "raw": sometimes(chance.choice([b"", b"\0", b"\xff", b"ab", b"ab\0", b"\x80\x01"])),
        }
        if name == "twice":
            row["id"] = chance.randrange(1, 6)
        rows.append(row)
    if name == "twice":
        rows += rows[:10] + rows[:5]
    return rows


# ---- Macros ------------------------------------------------------------------------------------------------------------

STRFTIME = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "doy": "%j", "dow": "%w"}
TRUNCATED = {"year": "%Y-01-01 00:00:00", "month": "%Y-%m-01 00:00:00", "day": "%Y-%m-%d 00:00:00", "hour": "%Y-%m-%d %H:00:00", "minute": "%Y-%m-%d %H:%M:00"}
WORDS_OF_MARIADB = {"year": "YEAR", "month": "MONTH", "day": "DAY", "hour": "HOUR", "minute": "MINUTE", "quarter": "QUARTER"}


def word_of(literal):
    return literal.strip().strip("'")


def looked_up(words, pattern):
    """A rendering by the first argument's word in a table; a word that is not there means otherwise."""

    def render(word, value):
        found = words.get(word_of(word))
        return None if found is None else pattern.format(found, value)

    return render


def sqlite_trunc_day(word, value):
    return looked_up(TRUNCATED, "strftime('{0}', {1})")(word, value)


SAME, C = "{0}", '({0}::text COLLATE "C")'
BYTES = "({0} COLLATE utf8mb4_nopad_bin)"
#: Macro: in Minerva, PostgreSQL, SQLite, MariaDB. Where PostgreSQL's type would make a difference (`numeric` sums and parts), it is cast.
MACROS = {
    # Columns. Text is compared and ordered by its bytes.
    "m_t": (SAME, C, "({0} COLLATE BINARY)", BYTES),
    "m_zero": (SAME, None, SAME, None),
    "m_nan": (SAME, SAME, SAME, SAME),
    # A boolean of MariaDB is a bit, which is put together with other numbers as bytes.
    "m_ok": (SAME, SAME, SAME, "CAST({0} AS SIGNED)"),
    # Literals.
    "m_lit_text": (SAME, C, SAME, BYTES),
    "m_lit_num": ("CAST({0} AS DECIMAL(12, 2))", "CAST({0} AS DECIMAL(12, 2))", lambda text: word_of(text) if Decimal(word_of(text)) * 4 % 1 == 0 else None, "CAST({0} AS DECIMAL(12, 2))"),
    "m_lit_numx": ("CAST({0} AS DECIMAL(38, 10))", "CAST({0} AS DECIMAL(38, 10))", None, "CAST({0} AS DECIMAL(38, 10))"),
    "m_lit_float": ("CAST({0} AS DOUBLE)", "CAST({0} AS double precision)", "CAST({0} AS REAL)", "CAST({0} AS DOUBLE)"),
    "m_lit_zero": ("CAST({0} AS DOUBLE)", None, lambda text: f"CAST({text} AS REAL)" if word_of(text) != "-0.0" else None, None),
    "m_lit_special": ("CAST({0} AS DOUBLE)", "CAST({0} AS double precision)", None, None),
    "m_lit_day": ("DATE {0}", "DATE {0}", SAME, "DATE {0}"),
    "m_lit_at": ("TIMESTAMP {0}", "TIMESTAMP {0}", SAME, "TIMESTAMP {0}"),
    # A literal of nanoseconds is compared with, and the first and the last year have none.
    "m_lit_atx": ("CAST({0} AS TIMESTAMP(6))", "TIMESTAMP {0}", SAME, "TIMESTAMP {0}"),
    "m_lit_tz": ("CAST({0} AS TIMESTAMP WITH TIME ZONE)", "CAST({0} AS TIMESTAMP WITH TIME ZONE)", SAME, "TIMESTAMP {0}"),
    "m_lit_raw": (lambda text: f"X'{word_of(text)}'", lambda text: f"'\\x{word_of(text)}'::bytea", lambda text: f"X'{word_of(text)}'", lambda text: f"X'{word_of(text)}'"),
    # Numbers.
    "m_div": ("({0} / {1})", "({0} / {1})", "({0} / {1})", "({0} DIV {1})"),
    "m_mod": ("({0} % {1})",) * 4,
    "m_div_num": ("({0} / {1})", None, None, None),
    "m_mul_num": ("({0} * {1})",) * 4,
    "m_round": ("round({0})", "round(({0})::numeric)::double precision", "round({0})", "CAST(round(CAST({0} AS DECIMAL(30, 6))) AS DOUBLE)"),
    "m_round_num": ("round({0}, 1)", "round({0}, 1)", None, "round({0}, 1)"),
    "m_floor": ("floor({0})",) * 4,
    "m_ceil": ("ceil({0})",) * 4,
    "m_double": ("CAST({0} AS DOUBLE)", "CAST({0} AS double precision)", "CAST({0} AS REAL)", "CAST({0} AS DOUBLE)"),
    "m_bigint": ("CAST({0} AS BIGINT)", "CAST({0} AS bigint)", "CAST({0} AS INTEGER)", "CAST({0} AS SIGNED)"),
    "m_int_of_float": ("CAST({0} AS BIGINT)", "CAST(trunc({0}) AS bigint)", "CAST({0} AS INTEGER)", "CAST(truncate({0}, 0) AS SIGNED)"),
    "m_int_of_num": ("CAST({0} AS BIGINT)", None, None, None),
    "m_num": ("CAST({0} AS DECIMAL(20, 2))", "CAST({0} AS DECIMAL(20, 2))", SAME, "CAST({0} AS DECIMAL(20, 2))"),
    "m_wide": ("CAST({0} AS DECIMAL(38, 0))", "CAST({0} AS numeric)", None, "CAST({0} AS DECIMAL(38, 0))"),
    "m_greatest": ("greatest({0}, {1})", "greatest({0}, {1})", None, None),
    "m_least": ("least({0}, {1})", "least({0}, {1})", None, None),
    # Aggregates.
    "m_sum_int": ("sum({0})", "sum({0})::bigint", "sum({0})", "CAST(sum({0}) AS SIGNED)"),
    "m_sum_int_if": ("sum({0}) FILTER (WHERE {1})", "(sum({0}) FILTER (WHERE {1}))::bigint", "sum({0}) FILTER (WHERE {1})", "CAST(sum(CASE WHEN {1} THEN {0} END) AS SIGNED)"),
    "m_sum_int_distinct": ("sum(DISTINCT {0})", "sum(DISTINCT {0})::bigint", "sum(DISTINCT {0})", "CAST(sum(DISTINCT {0}) AS SIGNED)"),
    "m_sum_float": ("sum({0})", "sum(({0})::double precision)", "sum({0})", "sum(CAST({0} AS DOUBLE))"),
    "m_list": ("string_agg({0}, ',' ORDER BY {0})", "string_agg({0}, ',' ORDER BY {0})", None, "group_concat({0} ORDER BY {0} SEPARATOR ',')"),
    "m_min_nan": ("min({0})",) * 4,
    "m_max_nan": ("max({0})",) * 4,
    "m_avg": ("avg({0})", "avg({0})::double precision", "avg({0})", "avg(CAST({0} AS DOUBLE))"),
    # The mean of whole numbers is that of their exact sum, however large. SQLite's is not where the sum has more than 64 bits.
    "m_avg_int": ("avg({0})", "(sum({0})::double precision / count({0}))", "avg({0})", "(CAST(sum({0}) AS DOUBLE) / count({0}))"),
    "m_avg_int_if": ("avg({0}) FILTER (WHERE {1})", "((sum({0}) FILTER (WHERE {1}))::double precision / count({0}) FILTER (WHERE {1}))", "avg({0}) FILTER (WHERE {1})",
                     "(CAST(sum(CASE WHEN {1} THEN {0} END) AS DOUBLE) / count(CASE WHEN {1} THEN {0} END))"),
    "m_avg_int_distinct": ("avg(DISTINCT {0})", "(sum(DISTINCT {0})::double precision / count(DISTINCT {0}))", "avg(DISTINCT {0})", "(CAST(sum(DISTINCT {0}) AS DOUBLE) / count(DISTINCT {0}))"),
    "m_avg_intx": ("avg({0})", "(sum({0})::double precision / count({0}))", None, "(CAST(sum({0}) AS DOUBLE) / count({0}))"),
    "m_avg_intx_distinct": ("avg(DISTINCT {0})", "(sum(DISTINCT {0})::double precision / count(DISTINCT {0}))", None, "(CAST(sum(DISTINCT {0}) AS DOUBLE) / count(DISTINCT {0}))"),
    # Over a window, whose words stand behind. PostgreSQL's and MariaDB's are decimals, of which two may be one double.
    "m_avg_over": ("avg({0})", None, "avg({0})", None),
    "m_avg_overx": ("avg({0})", None, None, None),
    "m_avg_num": ("avg({0})", None, None, None),
    "m_fold_if": ("{0}({1}) FILTER (WHERE {2})", "{0}({1}) FILTER (WHERE {2})", "{0}({1}) FILTER (WHERE {2})", "{0}(CASE WHEN {2} THEN {1} END)"),
    "m_count_if": ("count(*) FILTER (WHERE {0})", "count(*) FILTER (WHERE {0})", "count(*) FILTER (WHERE {0})", "count(CASE WHEN {0} THEN 1 END)"),
    "m_min_bool": ("min({0})", "bool_and({0})", "min({0})", "min({0})"),
    "m_max_bool": ("max({0})", "bool_or({0})", "max({0})", "max({0})"),
    "m_min_raw": ("min({0})", None, "min({0})", "min({0})"),
    "m_max_raw": ("max({0})", None, "max({0})", "max({0})"),
    # Text. Upper and lower case, where letters are not ASCII's, are Unicode's in Minerva and not in SQLite.
    "m_lower": ("lower({0})", '(lower({0} COLLATE "und-x-icu") COLLATE "C")', None, None),
    "m_upper": ("upper({0})", '(upper({0} COLLATE "und-x-icu") COLLATE "C")', None, None),
    "m_lower_ascii": ("lower({0})", "lower({0})", "lower({0})", "lower({0})"),
    "m_upper_ascii": ("upper({0})", "upper({0})", "upper({0})", "upper({0})"),
    "m_length": ("length({0})", "length({0})", "length({0})", "char_length({0})"),
    "m_strpos": ("strpos({0}, {1})", "strpos({0}, {1})", "instr({0}, {1})", "locate({1}, {0})"),
    "m_substr": ("substr({0}, {1}, {2})",) * 4,
    "m_left": ("left({0}, {1})", "left({0}, {1})", "substr({0}, 1, {1})", "left({0}, {1})"),
    "m_right": ("right({0}, {1})", "right({0}, {1})", None, "right({0}, {1})"),
    "m_sha": ("encode(sha256({0}), 'hex')", "encode(sha256(convert_to({0}, 'UTF8')), 'hex')", None, None),
    "m_reverse": ("reverse({0})", "reverse({0})", None, "reverse({0})"),
    "m_trim": ("trim({0})",) * 4,
    "m_ltrim": ("ltrim({0})",) * 4,
    "m_rtrim": ("rtrim({0})",) * 4,
    "m_concat": ("concat({0}, {1})", "concat({0}, {1})", "(coalesce({0}, '') || coalesce({1}, ''))", "concat(coalesce({0}, ''), coalesce({1}, ''))"),
    "m_join": ("({0} || {1})",) * 4,
    "m_replace": ("replace({0}, {1}, {2})",) * 4,
    "m_like": ("({0} LIKE {1})", "({0} LIKE {1})", "({0} LIKE {1} ESCAPE '\\')", "({0} LIKE {1} ESCAPE '\\')"),
    "m_ilike": ("({0} ILIKE {1})", None, None, None),
    "m_ilike_ascii": ("({0} ILIKE {1})", "({0} ILIKE {1})", "(lower({0}) LIKE lower({1}) ESCAPE '\\')", "(lower({0}) LIKE lower({1}) ESCAPE '\\')"),
    "m_text_of_int": ("CAST({0} AS VARCHAR)", '(CAST({0} AS text) COLLATE "C")', "CAST({0} AS TEXT)", "CAST({0} AS CHAR)"),
    "m_text_of_num": ("CAST({0} AS VARCHAR)", '(CAST({0} AS text) COLLATE "C")', None, "CAST({0} AS CHAR)"),
    # SQLite compares a column declared DATE with a number that it finds in the other text.
    "m_text_of_day": ("CAST({0} AS VARCHAR)", '(CAST({0} AS text) COLLATE "C")', "CAST({0} AS TEXT)", "CAST({0} AS CHAR)"),
    "m_text_of_bool": ("CAST({0} AS VARCHAR)", '(CAST({0} AS text) COLLATE "C")', None, None),
    "m_text_other": ("CAST({0} AS VARCHAR)", None, None, None),
    # Dates. A date and a number of days is a timestamp in PostgreSQL, and a text in SQLite.
    "m_part": ("date_part({0}, {1})", "date_part({0}, {1})::int", looked_up(STRFTIME, "CAST(strftime('{0}', {1}) AS INTEGER)"), looked_up(WORDS_OF_MARIADB, "extract({0} FROM {1})")),
    "m_trunc_at": ("date_trunc({0}, {1})", "date_trunc({0}, {1})", sqlite_trunc_day, None),
    "m_trunc_day": ("CAST(date_trunc({0}, {1}) AS DATE)", "CAST(date_trunc({0}, {1}::timestamp) AS DATE)", lambda word, value: f"date({rendered})" if (rendered := sqlite_trunc_day(word, value)) else None, None),
    "m_add_days": ("({0} + INTERVAL '{1}' DAY)", "({0} + {1})", "date({0}, '+{1} days')", "({0} + INTERVAL {1} DAY)"),
    "m_sub_days": ("({0} - INTERVAL '{1}' DAY)", "({0} - {1})", "date({0}, '-{1} days')", "({0} - INTERVAL {1} DAY)"),
    "m_add_months": ("({0} + INTERVAL '{1}' MONTH)", "CAST({0} + INTERVAL '{1}' MONTH AS DATE)", None, "({0} + INTERVAL {1} MONTH)"),
    "m_add_hours": ("({0} + INTERVAL '{1}' HOUR)", "({0} + INTERVAL '{1}' HOUR)", "datetime({0}, '+{1} hours')", "({0} + INTERVAL {1} HOUR)"),
    "m_at_of_day": ("CAST({0} AS TIMESTAMP)", "CAST({0} AS TIMESTAMP)", "({0} || ' 00:00:00')", "CAST({0} AS DATETIME)"),
    "m_day_of_at": ("CAST({0} AS DATE)", "CAST({0} AS DATE)", "date({0})", "CAST({0} AS DATE)"),
    # Comparisons and order. NULL comes last going up and first going down, unless it is said.
    "m_distinct": ("({0} IS DISTINCT FROM {1})", "({0} IS DISTINCT FROM {1})", "({0} IS NOT {1})", "(NOT ({0} <=> {1}))"),
    "m_same": ("({0} IS NOT DISTINCT FROM {1})", "({0} IS NOT DISTINCT FROM {1})", "({0} IS {1})", "({0} <=> {1})"),
    "m_up": (SAME, SAME, "{0} ASC NULLS LAST", "{0} IS NULL, {0}"),
    "m_up_first": ("{0} NULLS FIRST", "{0} NULLS FIRST", "{0} NULLS FIRST", "{0} IS NOT NULL, {0}"),
    "m_down": ("{0} DESC", "{0} DESC", "{0} DESC NULLS FIRST", "{0} IS NOT NULL, {0} DESC"),
    "m_down_last": ("{0} DESC NULLS LAST", "{0} DESC NULLS LAST", "{0} DESC NULLS LAST", "{0} IS NULL, {0} DESC"),
}


#: Statements that the engine answers wrongly by itself, so that it differs from every database, and from itself as soon as it lets one answer. They are
#: left out, and counted: pairs of a pattern and what is wrong. A line goes when the engine is mended.
KNOWN = []
#: What it says where it should be able to do a statement, in one plan and not in another.
KNOWN_ERRORS = [
    # SELECT (SELECT max(b.i) FROM items b WHERE b.i = a.c AND b.num = CAST('-1774.75' AS DECIMAL(12, 2))) FROM (SELECT CAST(i AS BIGINT) AS c FROM parts) a
    "Can't compare arrays of different types",
    # The same join of two types, where its keys are told to a scan.
    "The data type inlist should be same",
]


def known(template):
    """What the engine is known to do wrongly with a statement, or None."""
    return next((reason for pattern, reason in KNOWN if pattern.search(template)), None)


class Otherwise(Exception):
    """A database has no words for a statement, or means something else by them."""


CALL = re.compile(r"\bm_\w+\s*\(", re.IGNORECASE)


def arguments_at(text, start):
    """The arguments of a call whose parenthesis was opened before `start`, and where the call ends."""
    depth, begun, found, at = 0, start, [], start
    while True:
        letter = text[at]
        if letter in "'\"":
            at = text.index(letter, at + 1)
        elif letter == "(":
            depth += 1
        elif letter == "," and depth == 0:
            found.append(text[begun:at].strip())
            begun = at + 1
        elif letter == ")":
            if depth == 0:
                return [*found, text[begun:at].strip()], at + 1
            depth -= 1
        at += 1


def expand(template, position):
    """The statement of a template, in the words of one column of `MACROS`."""
    parts, begun, at = [], 0, 0
    while at < len(template):
        if template[at] in "'\"":
            at = template.index(template[at], at + 1) + 1
            continue
        found = CALL.match(template, at) if template[at] in "mM" else None
        if found is None:
            at += 1
            continue
        parts.append(template[begun:at])
        arguments, at = arguments_at(template, found.end())
        begun = at
        name = found[0].rstrip("( ").lower()
        words = MACROS[name][position]
        arguments = [expand(argument, position) for argument in arguments]
        text = None if words is None else words(*arguments) if callable(words) else words.format(*arguments)
        if text is None:
            raise Otherwise(name)
        parts.append(text)
    return "".join(parts) + template[begun:]


def for_minerva(template):
    return expand(template, 0)


# ---- Databases ---------------------------------------------------------------------------------------------------------


def conjuncts(condition):
    condition = condition.unnest()
    return [*conjuncts(condition.left), *conjuncts(condition.right)] if isinstance(condition, exp.And) else [condition]


class Dialect:
    """A database: its tables, its words and its client. `place` says where it is."""

    #: Of how many statements it must compute something, at least.
    pushed = 0.2
    #: The parts of statements that it is never asked for, or not in each run.
    without = ()
    #: Which column of MACROS.
    position = None
    #: What no macro is for and the database has not.
    lacks = re.compile(r"(?!)")
    #: What the database may say when it cannot do a statement that Minerva can.
    refusals = ()
    types = {}
    schema = None

    def mistakes(self, template):
        """What the database itself answers wrongly, or None."""
        return None

    def render(self, template):
        """The statement in the database's words; `Otherwise` where it has none."""
        lacking = self.lacks.search(template)
        if lacking:
            raise Otherwise(lacking[0])
        if mistaken := self.mistakes(template):
            raise Otherwise(f"mistaken: {mistaken}")
        return expand(template, self.position)

    def create_table(self, name):
        columns = ", ".join(f'"{column}" {self.types[column]}' for column in COLUMNS)
        return f"CREATE TABLE {name} ({columns})"

    def stored(self, column, value):
        """What is handed to the client for a value."""
        return value

    def fill(self, cursor, mark):
        marks = ", ".join([mark] * len(COLUMNS))
        for name, count in TABLES.items():
            cursor.execute(self.create_table(name))
            rows = [[self.stored(column, value) for column, value in row.items()] for row in rows_of_table(name, count)]
            if rows:
                cursor.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)


class PostgreSQL(Dialect):
    name, depot, schema, position = "postgresql", "pushpg", "public", 1
    #: Only conditions that it can hash or sort.
    refusals = ("FULL JOIN is only supported",)

    def __init__(self, folder, place):
        self.port = int(place)

    def types_of(self, connection):
        english = connection.execute("SELECT collname FROM pg_collation WHERE collname IN ('en_US.utf8', 'en-US-x-icu') ORDER BY collname = 'en_US.utf8' DESC").fetchone()[0]
        return {
            "id": "int NOT NULL", "Group": "int", "small": "smallint", "i": "int", "big": "bigint", "int_x": "int", "big_x": "bigint", "num": "numeric(12, 2)", "price": "numeric(12, 2)",
            "num_x": "numeric(38, 10)", "f": "double precision", "r": "real", "f_nan": "double precision", "f_zero": "double precision", "word": 'text COLLATE "C"',
            "name": f'text COLLATE "{english}"', "ci": "text COLLATE insensitive", "vc": "varchar(20)", "ch": "char(8)", "uid": "uuid", "mood": "mood", "day": "date", "day_x": "date",
            "at": "timestamp", "at_x": "timestamp", "tz": "timestamptz", "ok": "boolean", "raw": "bytea",
        }

    def load(self):
        import psycopg

        with psycopg.connect(host="127.0.0.1", port=self.port, user="reader", dbname="postgres", autocommit=True) as owner:
            owner.execute("DROP DATABASE IF EXISTS pushdown")
            owner.execute("CREATE DATABASE pushdown")
        with self.client() as connection:
            connection.execute("CREATE COLLATION insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
            connection.execute(f"CREATE TYPE mood AS ENUM ({', '.join(repr(mood) for mood in MOODS)})")
            self.types = self.types_of(connection)
            self.fill(connection.cursor(), "%s")
            connection.execute("ANALYZE")

    def stored(self, column, value):
        return value.replace(tzinfo=timezone.utc) if column == "tz" and value else value

    def manifest(self):
        return (
            f"name: {self.depot}\nversion: v2alpha\ntype: depot\ndepot:\n  type: POSTGRESQL\n  postgresql: {{host: 127.0.0.1, port: {self.port}, database: pushdown, params: {{sslmode: disable}}}}\n"
            f"  secrets: [{{name: {self.depot}-r}}]\n---\nname: {self.depot}-r\nversion: v1\ntype: instance-secret\ninstance-secret: {{data: {{username: reader, password: 5up3r-s3cret}}}}\n"
        )

    def client(self):
        import psycopg

        connection = psycopg.connect(host="127.0.0.1", port=self.port, user="reader", dbname="pushdown", autocommit=True)
        connection.execute("SET TIME ZONE 'UTC'")
        connection.execute("SET statement_timeout = '60s'")
        return connection

    def run(self, connection, sql):
        """(rows, None) or (None, the message)."""
        import psycopg

        try:
            return connection.execute(sql).fetchall(), None
        except psycopg.Error as error:
            return None, str(error)


class SQLite(Dialect):
    name, depot, schema, position = "sqlite", "pushlite", "main", 2
    without = ("full join",)
    lacks = re.compile(r"\b(INTERSECT|EXCEPT) ALL\b")
    types = {
        "id": "INTEGER NOT NULL", "Group": "INTEGER", "small": "SMALLINT", "i": "INT", "big": "BIGINT", "int_x": "INT", "big_x": "BIGINT", "num": "DECIMAL(12, 2)", "price": "DECIMAL(12, 2)",
        "num_x": "DECIMAL(15, 2)", "f": "DOUBLE", "r": "REAL", "f_nan": "DOUBLE", "f_zero": "DOUBLE", "word": "TEXT", "name": "TEXT COLLATE RTRIM", "ci": "TEXT COLLATE NOCASE", "vc": "VARCHAR(20)",
        "ch": "CHAR(8)", "uid": "TEXT", "mood": "TEXT", "day": "DATE", "day_x": "DATE", "at": "TIMESTAMP", "at_x": "TIMESTAMP", "tz": "DATETIME", "ok": "BOOLEAN", "raw": "BLOB",
    }

    def __init__(self, folder, place):
        self.path = folder / "pushdown.db"

    def mistakes(self, template):
        # SELECT a3.num FROM items a1 JOIN twice a2 ON a1.f = a2.r AND 1 = 2 FULL JOIN twice a3 ON TRUE
        if "FULL JOIN" in template:
            conditions = [join.args["on"] for join in sqlglot.parse_one(template, dialect="postgres").find_all(exp.Join) if join.args.get("on")]
            if any(not part.find(exp.Column) and not isinstance(part, exp.Boolean) for condition in conditions for part in conjuncts(condition)):
                return "a constant condition of an inner join beside a full join"
        return None

    def load(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(self.path) as connection:
            self.fill(connection.cursor(), "?")
        connection.close()

    def stored(self, column, value):
        match value:
            case Decimal():
                # Decimals are floating point numbers: only those whose sums are exact say the same.
                return float(round(max(min(value, Decimal(10**9)), Decimal(-(10**9))) * 4) / 4)
            case float() if math.isnan(value):
                return None
            case datetime():
                return value.isoformat(" ", "microseconds" if column == "at_x" else "seconds")
            case date():
                return value.isoformat()
            case bool():
                return int(value)
            case _:
                return value

    def manifest(self):
        return f"name: {self.depot}\nversion: v2alpha\ntype: depot\ndepot: {{type: SQLITE, sqlite: {{path: {self.path}}}}}\n"

    def client(self):
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, check_same_thread=False)
        connection.execute("PRAGMA case_sensitive_like = ON")
        return connection

    def run(self, connection, sql):
        try:
            return connection.execute(sql).fetchall(), None
        except sqlite3.Error as error:
            return None, str(error)


class MariaDB(Dialect):
    """A server on this machine, by its port or its socket, where `reader` may do all with the database `pushdown`."""

    name, depot, schema, position = "mariadb", "pushmy", "pushdown", 3
    lacks = re.compile(r"\bFULL\b")
    without = ("full join", "subquery")
    #: In the order of a derived table; a key that is an expression.
    refusals = ("(reference to group function)", "in 'HAVING'")
    types = {
        "id": "int NOT NULL", "Group": "int", "small": "smallint", "i": "int", "big": "bigint", "int_x": "int", "big_x": "bigint", "num": "decimal(12, 2)", "price": "decimal(12, 2)",
        "num_x": "decimal(38, 10)", "f": "double", "r": "float", "f_nan": "double", "f_zero": "double", "word": "text COLLATE utf8mb4_bin", "name": "text COLLATE utf8mb4_unicode_ci",
        "ci": "text COLLATE utf8mb4_general_ci", "vc": "varchar(20) COLLATE utf8mb4_unicode_nopad_ci", "ch": "char(8) COLLATE utf8mb4_general_ci", "uid": "uuid", "day": "date",
        "mood": f"enum({', '.join(repr(mood) for mood in MOODS)})", "day_x": "date", "at": "datetime", "at_x": "datetime(6)", "tz": "timestamp NULL", "ok": "bit(1)", "raw": "varbinary(20)",
    }

    def __init__(self, folder, place):
        self.place = {"host": "127.0.0.1", "port": int(place)} if place.isdigit() else {"unix_socket": place}

    def mistakes(self, template):
        # SELECT max(vc) OVER (ORDER BY at_x), sum(3) OVER (ORDER BY TRUE), max(f) OVER (PARTITION BY day ORDER BY id ROWS UNBOUNDED PRECEDING) FROM few
        if len(set(re.findall(r"OVER \((.*?)\) AS", template))) > 2:
            return "windows of several orders"
        # SELECT a4.i FROM parts a1 LEFT JOIN twice a4 ON a1.name = a4.name WHERE NOT a4.ok IS FALSE
        if re.search(r"\b(LEFT|RIGHT) JOIN\b.*\bNOT\b.*\bIS (TRUE|FALSE)\b", template):
            return "NOT of a test of truth above an outer join"
        # SELECT 1 FROM parts a2 WHERE NOT a2.big IN (SELECT a5.small FROM items a5), where a number is too large for the list, which has a NULL
        if re.search(r"\bNOT\b[^()]*\bIN \(SELECT\b", template):
            return "NOT IN of a list of another type with NULL"
        return None

    def render(self, template):
        # The name of an aggregate is no part of an expression that is ordered by, unless it is a column of a table.
        body, order, rest = template.rpartition(" ORDER BY m_")
        if order and rest.count("(") == rest.count(")"):
            template = f"SELECT * FROM ({body}) AS o{order}{rest}"
        return super().render(template)

    def load(self):
        with self.client(None) as connection, connection.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS pushdown")
            cursor.execute("CREATE DATABASE pushdown CHARACTER SET utf8mb4")
        with self.client() as connection, connection.cursor() as cursor:
            self.fill(cursor, "%s")
            # It is asked for joins where there are indexes only.
            for table in TABLES:
                cursor.execute(f'ALTER TABLE {table} ADD KEY (id), ADD KEY ("Group"), ADD KEY (big), ADD KEY (price), ADD KEY (int_x)')

    def stored(self, column, value):
        # It has neither NaN nor infinity.
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def manifest(self):
        server = f"host: 127.0.0.1, port: {self.place['port']}" if "port" in self.place else f"host: {self.place['unix_socket']}"
        return (
            f"name: {self.depot}\nversion: v2alpha\ntype: depot\ndepot:\n  type: MYSQL\n  mysql: {{{server}, params: {{sslmode: disable}}}}\n"
            f"  secrets: [{{name: {self.depot}-r}}]\n---\nname: {self.depot}-r\nversion: v1\ntype: instance-secret\ninstance-secret: {{data: {{username: reader, password: 5up3r-s3cret}}}}\n"
        )

    def client(self, database="pushdown"):
        import pymysql

        # Its cache of subqueries takes two keys for one that are equal in the collation of their column only.
        settings = "SET time_zone = '+00:00', max_statement_time = 60, max_sort_length = 4096, optimizer_switch = 'subquery_cache=off'"
        mode = "ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES"
        return pymysql.connect(**self.place, user="reader", password="5up3r-s3cret", database=database, charset="utf8mb4", autocommit=True,
                               sql_mode=mode, init_command=settings)

    def run(self, connection, sql):
        import pymysql

        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall(), None
        except pymysql.Error as error:
            return None, str(error)


DIALECTS = {dialect.name: dialect for dialect in (PostgreSQL, SQLite, MariaDB)}


# ---- Values ------------------------------------------------------------------------------------------------------------


def canonical(value, arrow):
    """A value of either side as both can write it, by Minerva's type of its column."""
    if value is None:
        return None
    try:
        return converted(value, str(arrow))
    except (ArithmeticError, ValueError, TypeError):
        # It is no value of that type, and so not equal to any.
        return f"{value!r}, which is no {arrow}"


def converted(value, kind):
    if kind == "bool":
        return bool(value)
    if "int" in kind and kind.lstrip("u").startswith("int"):
        return str(int(value)) if value == int(value) else str(value)
    if kind.startswith("decimal"):
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        # All digits count, of which Python's own arithmetic keeps 28.
        text = f"{exact:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text
    if kind in ("float", "double"):
        number = float(value)
        if kind == "float" and math.isfinite(number):
            number = struct.unpack("f", struct.pack("f", number))[0]
        # Neither zero nor the last digits are told apart: sums may be made in another order.
        return f"{number + 0.0:.9g}"
    if kind.startswith(("date32", "timestamp")):
        if isinstance(value, datetime) and value.tzinfo:
            value = value.astimezone(timezone.utc).replace(tzinfo=None)
        text = str(value)
        text = text.rstrip("0").rstrip(".") if "." in text else text
        # A date is the beginning of its day.
        return text.removesuffix(" 00:00:00")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value)

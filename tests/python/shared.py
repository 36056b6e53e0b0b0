"""What the checks share: the arguments, the list of checks, and a few helpers."""

import sys
import traceback

from adbc_driver_flightsql import DatabaseOptions, dbapi

HOST, PORT, USER, KEY = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
URI = f"grpc://{HOST}:{PORT}"

#: Ten rows, without any table.
TEN = "(VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))"
#: A query that would run for days.
ENDLESS = "WITH RECURSIVE r(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM r WHERE i > 0) SELECT max(i) AS n FROM r"
#: A million rows of about 24 bytes each.
MILLION = "SELECT concat('a text of row number ', x0) AS t, x1 AS n FROM " + ", ".join(f"{TEN} AS t{i}(x{i})" for i in range(6))

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def run_checks():
    """Runs every check that is registered; the exit code."""
    for function in CHECKS:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            print(f"FAILED {function.__name__}", flush=True)
            return 1
        print(f"ok {function.__name__}", flush=True)
    return 0


def connect(cookies=False, **options):
    """A connection of the ADBC driver."""
    settings = {"username": USER, "password": KEY, **options}
    if cookies:
        settings[DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value] = "true"
    return dbapi.connect(URI, db_kwargs=settings, autocommit=True)


def raises(kind, function, *needles):
    """The error of a call that must fail, whose text holds all needles."""
    try:
        function()
    except kind as error:
        for needle in needles:
            assert needle in str(error), f"`{needle}` is not in: {error}"
        return error
    raise AssertionError(f"the call succeeded; expected {kind}")


def some_table(connection):
    """Catalog, schema, name and kind of a table that can be selected from; an ordinary one if there is any."""
    found = []
    for catalog in connection.adbc_get_objects(depth="tables").read_all().to_pylist():
        for schema in catalog["catalog_db_schemas"] or []:
            for table in schema["db_schema_tables"] or []:
                entry = (catalog["catalog_name"], schema["db_schema_name"], table["table_name"], table["table_type"])
                found.append(entry)
    assert found, "no table is listed"
    return sorted(found, key=lambda entry: (entry[3] != "TABLE", entry))[0]


def quoted(*names):
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)

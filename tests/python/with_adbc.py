"""Checks with the ADBC driver for Flight SQL, as Python programs, pandas and Polars use it."""

import base64
import json
import threading
import time
import warnings

import adbc_driver_flightsql
import adbc_driver_manager
import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions, dbapi
from shared import ENDLESS, KEY, MILLION, TEN, URI, USER, check, connect, quoted, raises, some_table


@check
def adbc_selects_values_of_each_type():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 AS i, CAST(2 AS BIGINT) AS b, CAST(1.5 AS DECIMAL(10,2)) AS d, 2.5e0 AS f, 'text' AS t, true AS y, "
            "CAST('2026-07-05' AS DATE) AS day, TIMESTAMP '2026-07-05 09:16:22' AS ts, CAST(NULL AS INT) AS nothing"
        )
        table = cursor.fetch_arrow_table()
        assert table.num_rows == 1
        row = table.to_pylist()[0]
        assert row["i"] == 1 and row["b"] == 2 and str(row["d"]) == "1.50" and row["f"] == 2.5
        assert row["t"] == "text" and row["y"] is True and row["nothing"] is None
        assert row["day"].isoformat() == "2026-07-05"
        assert str(table.schema.field("t").type) in ("string", "large_string"), "views do not leave the server"
        cursor.execute("SELECT x FROM " + TEN + " AS t(x) ORDER BY x DESC")
        assert [row[0] for row in cursor.fetchall()] == list(range(9, -1, -1))
        assert cursor.description[0][0] == "x"


@check
def adbc_reads_an_empty_result_with_its_columns():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 AS a, 'x' AS b WHERE false")
        table = cursor.fetch_arrow_table()
        assert table.num_rows == 0 and table.column_names == ["a", "b"]


@check
def adbc_reads_a_large_result():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(MILLION)
        table = cursor.fetch_arrow_table()
        assert table.num_rows == 1_000_000
        assert sum(table.column("n").to_pylist()) == 4_500_000


@check
def adbc_small_messages_are_enough():
    with connect(**{DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(4 << 20)}) as connection, connection.cursor() as cursor:
        cursor.execute(MILLION)
        assert cursor.fetch_arrow_table().num_rows == 1_000_000


@check
def adbc_binds_parameters():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT CAST($1 AS BIGINT) + 1 AS n, CAST($2 AS VARCHAR) AS t", (41, "forty-one"))
        assert cursor.fetchall() == [(42, "forty-one")]
        cursor.execute("SELECT CAST($1 AS BIGINT) AS n, CAST($2 AS VARCHAR) AS t", (None, None))
        assert cursor.fetchall() == [(None, None)]
        cursor.execute("SELECT x FROM " + TEN + " AS t(x) WHERE x = $1", (7,))
        assert cursor.fetchall() == [(7,)]


@check
def adbc_prepares_and_executes_again():
    with connect() as connection, connection.cursor() as cursor:
        sql = "SELECT x FROM " + TEN + " AS t(x) WHERE x > $1 ORDER BY x"
        schema = cursor.adbc_prepare(sql)
        assert len(schema) == 1, schema
        for low in (7, 8, 3):
            cursor.execute(sql, (low,))
            assert [row[0] for row in cursor.fetchall()] == list(range(low + 1, 10))


@check
def adbc_refuses_several_parameter_rows_of_a_query():
    with connect() as connection, connection.cursor() as cursor:
        statement = cursor.adbc_statement
        statement.set_sql_query("SELECT CAST($1 AS BIGINT) AS n")
        statement.prepare()
        statement.bind(pa.record_batch({"0": pa.array([1, 2], pa.int64())}))
        raises(adbc_driver_manager.Error, statement.execute_query, "2 rows of parameters")


@check
def adbc_says_when_parameters_are_missing():
    with connect() as connection, connection.cursor() as cursor:
        raises(adbc_driver_manager.Error, lambda: cursor.execute("SELECT CAST($1 AS BIGINT) AS n"), "parameter")


@check
def adbc_runs_statements_without_rows():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE VIEW adbc_probe AS SELECT 42 AS n")
        assert cursor.fetchall() == []
        cursor.execute("SELECT n FROM adbc_probe")
        assert cursor.fetchall() == [(42,)]
        statement = cursor.adbc_statement
        statement.set_sql_query("DROP VIEW adbc_probe")
        assert statement.execute_update() >= 0
        raises(adbc_driver_manager.Error, lambda: cursor.execute("SELECT n FROM adbc_probe"), "adbc_probe")


@check
def adbc_executes_a_prepared_update_for_each_row():
    with connect() as connection, connection.cursor() as cursor:
        cursor.executemany("SELECT CAST($1 AS BIGINT) AS n", [(1,), (2,), (3,)])


@check
def adbc_describes_a_query_without_running_it():
    with connect() as connection, connection.cursor() as cursor:
        started = time.monotonic()
        schema = cursor.adbc_execute_schema(ENDLESS)
        assert schema.names == ["n"] and time.monotonic() - started < 10


@check
def adbc_lists_objects_at_every_depth():
    with connect() as connection:
        catalog, schema, name, kind = some_table(connection)
        for depth in ("catalogs", "db_schemas", "tables", "columns", "all"):
            objects = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
            found = [entry for entry in objects if entry["catalog_name"] == catalog]
            assert len(found) == 1, (depth, objects)
            if depth == "catalogs":
                continue
            schemas = [entry for entry in found[0]["catalog_db_schemas"] if entry["db_schema_name"] == schema]
            assert len(schemas) == 1, (depth, found)
            if depth == "db_schemas":
                continue
            tables = [entry for entry in schemas[0]["db_schema_tables"] if entry["table_name"] == name]
            assert len(tables) == 1 and tables[0]["table_type"] == kind, (depth, schemas)
            if depth == "tables":
                continue
            columns = [column["column_name"] for column in tables[0]["table_columns"]]
            types = [column["xdbc_type_name"] for column in tables[0]["table_columns"]]
            assert columns and all(types), (depth, tables)
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {quoted(catalog, schema, name)} LIMIT 1")
                assert cursor.fetch_arrow_table().column_names == columns


@check
def adbc_filters_objects():
    with connect() as connection:
        catalog, schema, name, kind = some_table(connection)

        def tables(**filters):
            objects = connection.adbc_get_objects(depth="tables", **filters).read_all().to_pylist()
            return [
                (entry["catalog_name"], inner["db_schema_name"], table["table_name"])
                for entry in objects
                for inner in entry["catalog_db_schemas"] or []
                for table in inner["db_schema_tables"] or []
            ]

        assert (catalog, schema, name) in tables(table_name_filter=name[:1] + "%")
        assert (catalog, schema, name) in tables(table_name_filter="_" * len(name), db_schema_filter=schema)
        assert (catalog, schema, name) in tables(table_types_filter=[kind])
        assert tables(table_name_filter="no such table at all") == []
        assert (catalog, schema, name) not in tables(table_types_filter=["NO SUCH KIND"])


@check
def adbc_reads_the_schema_of_a_table():
    with connect() as connection:
        catalog, schema, name, _ = some_table(connection)
        described = connection.adbc_get_table_schema(name, catalog_filter=catalog, db_schema_filter=schema)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {quoted(catalog, schema, name)} LIMIT 0")
            selected = cursor.fetch_arrow_table().schema
        assert described.names == selected.names
        assert [field.type for field in described] == [field.type for field in selected]
        assert all(b"ARROW:FLIGHT:SQL:TYPE_NAME" in field.metadata for field in described)


@check
def adbc_lists_table_types():
    with connect() as connection:
        assert {"SYSTEM TABLE", "TABLE", "VIEW"} <= set(connection.adbc_get_table_types())


@check
def adbc_reads_info():
    with connect() as connection:
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "Minerva", info
        assert info["vendor_version"] and info["vendor_arrow_version"], info


@check
def adbc_has_no_transactions_and_says_so():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with dbapi.connect(URI, db_kwargs={"username": USER, "password": KEY}) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                assert cursor.fetchone() == (1,)
        assert any("autocommit" in str(warning.message) for warning in caught), caught


def current_catalog_and_schema(cookies):
    with connect(cookies) as connection, connect(cookies) as other:
        catalog, schema, name, _ = some_table(connection)
        assert connection.adbc_current_catalog == ""
        connection.adbc_current_catalog = catalog
        connection.adbc_current_db_schema = schema
        assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == (catalog, schema)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {quoted(name)} LIMIT 1")
            assert cursor.fetch_arrow_table().num_columns > 0

        def refused():
            connection.adbc_current_catalog = "no_such_catalog"

        raises(adbc_driver_manager.Error, refused, "catalog")
        assert connection.adbc_current_catalog == catalog
        assert other.adbc_current_catalog == "", "sessions are apart"


@check
def adbc_sets_current_catalog_and_schema_without_cookies():
    current_catalog_and_schema(cookies=False)


@check
def adbc_sets_current_catalog_and_schema_with_cookies():
    current_catalog_and_schema(cookies=True)


@check
def adbc_reads_and_erases_session_options():
    with connect() as connection:
        catalog, schema, _, _ = some_table(connection)
        low_level = connection.adbc_connection
        prefix = adbc_driver_flightsql.ConnectionOptions.OPTION_SESSION_OPTION_PREFIX.value
        erase = adbc_driver_flightsql.ConnectionOptions.OPTION_ERASE_SESSION_OPTION_PREFIX.value
        every = adbc_driver_flightsql.ConnectionOptions.OPTION_SESSION_OPTIONS.value
        low_level.set_options(**{prefix + "catalog": catalog})
        low_level.set_options(**{prefix + "schema": schema})
        assert json.loads(low_level.get_option(every)) == {"catalog": catalog, "schema": schema}
        low_level.set_options(**{erase + "schema": ""})
        assert json.loads(low_level.get_option(every)) == {"catalog": catalog, "schema": ""}
        refused = lambda: low_level.set_options(**{prefix + "no_such_option": "x"})
        raises(adbc_driver_manager.Error, refused, "no_such_option", "invalid name")


@check
def adbc_sets_session_properties():
    with connect() as connection, connect() as other, connection.cursor() as cursor, other.cursor() as elsewhere:
        def shown(cursor, name):
            cursor.execute(f"SHOW SESSION LIKE '{name}'")
            [(found, value, default, kind, description)] = cursor.fetchall()
            assert found == name and description and kind
            return value, default

        catalog, _, _, _ = some_table(connection)
        cursor.execute("SHOW SESSION")
        names = [row[0] for row in cursor.fetchall()]
        assert {f"{catalog}.pushdown", "query_max_rows", "query_max_run_time"} <= set(names), names
        assert shown(cursor, "query_max_rows") == ("", "")
        cursor.execute("SET SESSION query_max_rows = 5")
        cursor.execute(f"SET SESSION {catalog}.pushdown = false")
        assert shown(cursor, "query_max_rows") == ("5", "")
        assert shown(cursor, f"{catalog}.pushdown") == ("false", "true")
        assert shown(elsewhere, "query_max_rows") == ("", ""), "sessions are apart"
        statement = "SELECT x FROM " + TEN + " AS t(x)"
        raises(adbc_driver_manager.Error, lambda: (cursor.execute(statement), cursor.fetchall()), "more than 5 rows")
        elsewhere.execute(statement)
        assert len(elsewhere.fetchall()) == 10
        cursor.execute("RESET SESSION query_max_rows")
        cursor.execute(statement)
        assert len(cursor.fetchall()) == 10
        assert shown(cursor, f"{catalog}.pushdown") == ("false", "true"), "the others stay"
        for wrong, *texts in [
            ("SET SESSION query_max_row = 1", "query_max_row", "did you mean `query_max_rows`"),
            ("SET SESSION query_max_rows = 'many'", "query_max_rows", "a whole number"),
            ("SET SESSION no_such_catalog.pushdown = false", "no_such_catalog"),
            (f"SET SESSION {catalog}.pushdown = 7", "`true` or `false`"),
            ("SET SESSION query_max_rows = (SELECT 1)", "no literal"),
            ("SET datafusion.execution.batch_size = 1", "SHOW SESSION"),
        ]:
            raises(adbc_driver_manager.Error, lambda: cursor.execute(wrong), *texts)


@check
def adbc_tells_what_is_wrong_with_a_statement():
    with connect() as connection, connection.cursor() as cursor:
        raises(adbc_driver_manager.Error, lambda: cursor.execute("SELECT * FROM no_such_table"), "no_such_table")
        error = raises(adbc_driver_manager.Error, lambda: cursor.execute("SELEKT 1"))
        details = {(name.decode() if isinstance(name, bytes) else name): value for name, value in error.details or []}
        assert details.get("minerva-error-code") == b"SYNTAX_ERROR", details
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,), "the connection lives on"


@check
def adbc_cancels_a_running_query():
    with connect() as connection, connection.cursor() as cursor:
        timer = threading.Timer(1.0, cursor.adbc_cancel)
        started = time.monotonic()
        timer.start()

        def run():
            cursor.execute(ENDLESS)
            cursor.fetchall()

        raises(adbc_driver_manager.Error, run)
        timer.join()
        assert time.monotonic() - started < 20


@check
def adbc_executes_incrementally():
    with connect() as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{"adbc.statement.exec.incremental": "true"})
        partitions, schema = cursor.adbc_execute_partitions("SELECT 7 AS n")
        assert schema.names == ["n"] and len(partitions) == 1
        with connection.cursor() as reader:
            reader.adbc_read_partition(partitions[0])
            assert reader.fetchall() == [(7,)]


@check
def adbc_wants_the_right_key():
    wrong = lambda: dbapi.connect(URI, db_kwargs={"username": USER, "password": KEY + "x"}, autocommit=True)
    raises(adbc_driver_manager.Error, wrong, "Unauthenticated")

    def anonymous():
        with dbapi.connect(URI, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    raises(adbc_driver_manager.Error, anonymous, "Unauthenticated")
    bearer = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {KEY}"}
    basic = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()}
    for header in (bearer, basic):
        with dbapi.connect(URI, db_kwargs=header, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)

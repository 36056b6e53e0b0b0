"""The audit: each statement leaves one record, whatever became of it, and only those who may read it do.

python audit.py PROGRAM FOLDER
"""

import base64
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.flight
from adbc_driver_flightsql import dbapi
from minerva_server import Server

AUDIT = "gateway.public.query_audit"


def flight(server, user, **more):
    settings = {"username": user, "password": server.key(user), **more}
    return dbapi.connect(f"grpc://{server.addresses['flight']}", db_kwargs=settings, autocommit=True)


def records(server, user, where="TRUE"):
    return server.rows(user, f"SELECT * FROM {AUDIT} WHERE {where} ORDER BY created, query_id")


def newest(server, user, sql):
    """The record of a statement that was just run."""
    text = sql.replace("'", "''")
    found = server.rows("admin", f"SELECT * FROM {AUDIT} WHERE query = '{text}' AND \"user\" = '{user}' ORDER BY created DESC LIMIT 1")
    assert len(found) == 1, (sql, found)
    return found[0]


def every_kind_of_end_is_recorded(server):
    good = "SELECT max(id) AS m FROM crm.public.customer c WHERE c.region IN (SELECT region FROM crm.public.customer)"
    assert server.rows("jane", good) == [{"m": 3}]
    record = newest(server, "jane", good)
    assert (record["state"], record["statement_kind"], record["output_rows"], record["door"], record["cluster"]) == (
        "FINISHED", "SELECT", 1, "flight", "minerva"), record
    assert record["client_address"].startswith("127.0.0.1:") and record["source"] and record["resources_version"], record
    assert record["elapsed_time_ms"] >= 0 and record["end"] and record["error_code"] is None, record
    [table] = json.loads(record["tables"])
    assert table["decision"] == "ALLOWED" and table["access"] == ["analysts"] and table["policyname"] == "own-region", table
    assert sorted(column["name"] for column in table["columns"]) == ["id", "region"], table
    for sql, code, kind in [
        ("SELECT * FROM crm.public.payroll", "TABLE_NOT_FOUND", "SELECT"),
        ("SELECT * FROM crm.secret.plan", "TABLE_NOT_FOUND", "SELECT"),
        ("SELECT * FROM nowhere.at.all", "CATALOG_NOT_FOUND", "SELECT"),
        ("SELECT nothing FROM crm.public.customer", "COLUMN_NOT_FOUND", "SELECT"),
        ("SELECT * FROM crm.public.broken", "POLICY_ERROR", "SELECT"),
        ("SELECT 1/(id-1) FROM crm.public.customer", "DIVISION_BY_ZERO", "SELECT"),
        ("SELCT 'kaputt'", "SYNTAX_ERROR", None),
        ("DROP TABLE crm.public.customer", None, "DROP TABLE"),
        ("INSERT INTO gateway.public.query_audit SELECT * FROM gateway.public.query_audit", None, "INSERT"),
    ]:
        said = server.error("jane", sql)
        record = newest(server, "jane", sql)
        assert record["state"] == "FAILED" and record["statement_kind"] == kind, record
        assert record["error_code"] == code or code is None and record["error_code"], record
        assert record["error_code"] in said and record["error_message"], (said, record)
    denied = json.loads(newest(server, "jane", "SELECT * FROM crm.public.payroll")["tables"])
    assert [(t["decision"], t["access"]) for t in denied] == [("DENIED", ["no-payroll"])], denied
    closed = json.loads(newest(server, "jane", "SELECT * FROM crm.public.broken")["tables"])
    assert [(t["decision"], t["policyname"]) for t in closed] == [("CLOSED", "broken-filter")], closed
    with flight(server, "jane") as connection, connection.cursor() as cursor:
        try:
            cursor.adbc_prepare("SELECT * FROM crm.public.payroll WHERE id = ?")
            raise AssertionError("a denied statement was prepared")
        except dbapi.Error as error:
            assert "TABLE_NOT_FOUND" in str(error) or "does not exist" in str(error), error
    prepared = newest(server, "jane", "SELECT * FROM crm.public.payroll WHERE id = ?")
    assert prepared["state"] == "FAILED" and prepared["error_code"] == "TABLE_NOT_FOUND", prepared
    sql = "SELECT count(*) AS acting FROM crm.public.customer"
    acting = {"adbc.flight.sql.rpc.call_header.x-minerva-user": "jane"}
    with flight(server, "boss", **acting) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        assert cursor.fetchall() == [(2,)]
    record = newest(server, "jane", sql)
    assert (record["user"], record["impersonator"], record["state"]) == ("jane", "boss", "FINISHED"), record
    for sql, kind in [
        ("SHOW TABLES FROM crm.public", "SHOW TABLES"), ("EXPLAIN SELECT email FROM crm.public.customer", "EXPLAIN"),
        ("CREATE TABLE notes.none.few AS SELECT id, email FROM crm.public.customer", "CREATE TABLE AS SELECT"),
        ("SHOW CATALOGS", "SHOW CATALOGS"),
    ]:
        server.client("sql", "-e", sql, user="jane")
        record = newest(server, "jane", sql)
        assert record["statement_kind"] == kind and record["end"], record


def it_reads_as_a_table(server):
    whole = records(server, "admin")
    assert len({record["query_id"] for record in whole}) == len(whole)
    one = whole[0]
    by_id = records(server, "admin", f"query_id = '{one['query_id']}'")
    assert by_id == [one]
    assert records(server, "admin", f"query_id = '{one['query_id']}' AND \"user\" = 'nobody'") == []
    count = server.rows("admin", f"SELECT count(*) AS n, count(DISTINCT query_id) AS d FROM {AUDIT} WHERE \"user\" = 'jane'")
    assert count[0]["n"] == count[0]["d"] == len([record for record in whole if record["user"] == "jane"]), count
    later = server.rows("admin", f"SELECT count(*) AS n FROM {AUDIT} WHERE created > TIMESTAMP '2099-01-01 00:00:00'")
    assert later == [{"n": 0}]
    before = server.rows("admin", f"SELECT count(*) AS n FROM {AUDIT} WHERE created >= TIMESTAMP '2000-01-01 00:00:00' AND state = 'FAILED'")
    assert before[0]["n"] == len([record for record in whole if record["state"] == "FAILED"]), before
    names = server.rows("admin", "SELECT table_name FROM gateway.information_schema.tables WHERE table_schema = 'public' ORDER BY 1")
    assert [row["table_name"] for row in names] == ["authentication_audit", "query_audit"], names
    assert len(server.rows("admin", f"SELECT query_id FROM {AUDIT} LIMIT 2")) == 2
    for user in ("jane", "admin"):
        assert "AuditExec" in json.dumps(server.rows(user, f"EXPLAIN SELECT query_id FROM {AUDIT} WHERE query_id = 'x'"))


def one_sees_ones_own(server):
    server.rows("tom", "SELECT 'toms own'")
    for user in ("jane", "tom"):
        assert {record["user"] for record in records(server, user)} == {user}
    assert server.rows("tom", f"SELECT count(*) AS n FROM {AUDIT} WHERE \"user\" = 'jane'") == [{"n": 0}]
    everybody = {record["user"] for record in records(server, "admin")}
    assert everybody == {"admin", "jane", "tom"}, everybody
    # What was denied does not exist for the one who was denied, nor do the policies that denied it.
    own = [json.loads(record["tables"]) for record in records(server, "jane") if "payroll" in record["query"] and "audit" not in record["query"]]
    assert own and all(tables == [] for tables in own), own
    assert "no-payroll" not in json.dumps([record["tables"] for record in records(server, "jane")])
    assert server.rows("jane", "SELECT count(*) AS n FROM gateway.public.authentication_audit") == [{"n": 0}]


def who_acts_as_another_sees_their_own_deeds_only(server):
    acting = {"adbc.flight.sql.rpc.call_header.x-minerva-user": "jane"}
    runtime = 'SELECT query_id, query, "user", impersonator FROM system.runtime.queries'
    audit = f'SELECT query_id, query, "user", impersonator FROM {AUDIT}'
    server.rows("jane", "SELECT 'janes own'")
    [own] = [record["query_id"] for record in records(server, "jane") if record["query"] == "SELECT 'janes own'"]
    with flight(server, "boss", **acting) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 'as jane'")
        cursor.fetchall()
        for table in (runtime, audit):
            cursor.execute(table)
            seen = cursor.fetchall()
            assert {(user, by) for _, _, user, by in seen} == {("jane", "boss")}, seen
            assert "SELECT 'as jane'" in [query for _, query, _, _ in seen], seen
        # What jane runs is not theirs to stop.
        endless = "WITH RECURSIVE r(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM r WHERE i > 0) SELECT avg(i) AS n FROM r"
        environment = {**os.environ, "MINERVA_APIKEY": server.key("jane")}
        running = subprocess.Popen([sys.argv[1], "sql", "--server", server.addresses["flight"], "--user", "jane", "-e", endless],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        try:
            where = "query LIKE 'WITH RECURSIVE r(i)%SELECT avg(i)%'"
            until = time.monotonic() + 30
            while not (found := records(server, "jane", where)):
                assert time.monotonic() < until
                time.sleep(0.1)
            kill = f"CALL system.runtime.kill_query(query_id => '{found[0]['query_id']}')"
            try:
                cursor.execute(kill)
                cursor.fetchall()
                raise AssertionError("somebody stopped what is another's")
            except dbapi.Error as error:
                assert "is not running" in str(error), error
            server.rows("jane", kill)
            running.wait(timeout=60)
        finally:
            running.kill()
    by_boss = {"x-minerva-user": "jane"}
    assert server.get(f"/gateway/api/v1/query/{own}", user="jane")[0] == 200
    assert server.get(f"/gateway/api/v1/query/{own}", user="boss", headers=by_boss)[0] == 404
    decision = f"/gateway/api/v1/datapolicy/decision/crm/public/customer?queryId={own}"
    assert server.get(decision, user="jane")[0] == 200 and server.get(decision, user="boss", headers=by_boss)[0] == 404
    listed = server.get("/gateway/api/v1/query/audit?limit=1000", user="boss", headers=by_boss)[1]["queries"]
    assert listed and {query["impersonator"] for query in listed} == {"boss"}, listed
    # jane sees what was done in her name.
    assert "boss" in {record["impersonator"] for record in records(server, "jane")}
    assert "boss" in {row["impersonator"] for row in server.rows("jane", runtime)}


def sql_does_not_write_it(server):
    count = f"SELECT count(*) AS n FROM {AUDIT} WHERE query = 'forged'"
    for user in ("admin", "jane"):
        for sql in [
            f"DELETE FROM {AUDIT}", f"UPDATE {AUDIT} SET query = 'forged'", f"DROP TABLE {AUDIT}",
            f"INSERT INTO {AUDIT} (query_id, query) VALUES ('x', 'forged')", f"CREATE TABLE {AUDIT} AS SELECT 1 AS x",
            f"TRUNCATE TABLE {AUDIT}", "CREATE TABLE gateway.public.other AS SELECT 1 AS x", f"ALTER TABLE {AUDIT} DROP COLUMN query",
        ]:
            server.error(user, sql)
    assert server.rows("admin", count) == [{"n": 0}]


def failed_logins_are_counted(server):
    for _ in range(3):
        assert server.get("/gateway/api/v1/clusters", headers={"Authorization": "Basic " + "amFuZTp3cm9uZw=="})[0] == 401
    done = subprocess.run(
        [server.program, "sql", "--server", server.addresses["flight"], "--user", "mallory", "-e", "SELECT 1"],
        capture_output=True, text=True, env={**os.environ, "MINERVA_APIKEY": "a-wrong-key-that-nobody-may-find"}, check=False)
    assert done.returncode != 0
    # A key that was typed as the name of the user is not kept; a name that is as long and somebody's would be.
    long = "k" + "q7Xz" * 11
    pair = base64.b64encode(f"{long}:whatever".encode()).decode()
    assert server.get("/gateway/api/v1/clusters", headers={"Authorization": "Basic " + pair})[0] == 401
    assert server.rows("admin", "SELECT count(*) AS n FROM gateway.public.authentication_audit WHERE claimed_user IS NULL AND door = 'http'")[0]["n"] >= 1
    files = b"".join(path.read_bytes() for path in Path(server.folder / "data").glob("audit.db*"))
    assert long.encode() not in files, "a key that was typed as a user is in the audit"
    rows = server.rows("admin", "SELECT door, claimed_user, client_address, error_code, sum(attempts) AS n FROM gateway.public.authentication_audit "
                                "GROUP BY door, claimed_user, client_address, error_code ORDER BY door")
    by_door = {(row["door"], row["claimed_user"]): row for row in rows}
    assert by_door["http", "jane"]["n"] >= 3 and by_door["http", "jane"]["client_address"] == "127.0.0.1", rows
    assert by_door["flight", "mallory"]["n"] >= 1, rows
    # Who is locked out and goes on trying is told other seconds each time, and that is one row for each minute.
    said = set()
    for _ in range(16):
        status, document = server.get("/gateway/api/v1/clusters", headers={"Authorization": "Basic " + base64.b64encode(b"lena:wrong").decode()})
        assert status == 401
        said.add(document["error"]["message"])
        if "too many" in document["error"]["message"]:
            assert re.match("try again in [0-9]+ s", document["error"]["hint"]), document
    assert said == {"the user is unknown or the API key is wrong", "too many wrong keys came from this address"}, said
    rows = server.rows("admin", "SELECT minute, error_message, attempts FROM gateway.public.authentication_audit WHERE claimed_user = 'lena'")
    assert len({(row["minute"], row["error_message"]) for row in rows}) == len(rows) <= 2 * len({row["minute"] for row in rows}), rows
    assert sum(row["attempts"] for row in rows) == 16, rows


def refused_calls_are_recorded(server):
    def calls(where):
        return [(r["door"], r["user"], r["state"], r["error_code"], r["query"], r["tables"]) for r in records(server, "admin", f"statement_kind = 'API' AND impersonator IS NULL AND {where}")]

    before = calls("query NOT LIKE 'minerva.apikey.%'")
    assert before == [], before
    authorize = "/heimdall/api/v1/authorize"

    def ask(**object_):
        return server.post(authorize, {"token": server.key("jane"), "predicate": "select", "object": object_})[0]

    assert ask(paths=["dataos://crm:public/customer"]) == 200 and ask(paths=["dataos://crm:public/payroll", "dataos://crm:secret/plan"]) == 403
    assert ask(paths=[]) == 400 and server.post(authorize, {"token": "no key"})[0] == 401
    decision = "/gateway/api/v1/datapolicy/decision/crm/public"
    assert server.get(f"{decision}/customer", user="jane")[0] == 200
    assert server.get(f"{decision}/payroll", user="jane")[0] == 404
    assert server.get("/gateway/api/v1/query/not-a-query", user="jane")[0] == 404
    assert server.get("/gateway/api/v1/clusters?nothing=1", user="jane")[0] == 400
    assert server.get("/nowhere", user="jane")[0] == 404 and server.get("/health/ready", user="jane")[0] == 200
    found = calls("door = 'http'")
    assert [call[:5] for call in found] == [
        ("http", "jane", "FAILED", "PERMISSION_DENIED", f"POST {authorize} select dataos://crm:public/payroll dataos://crm:secret/plan"),
        ("http", "jane", "FAILED", "TABLE_NOT_FOUND", f"GET {decision}/payroll"),
        ("http", "jane", "FAILED", "NOT_FOUND", "GET /gateway/api/v1/query/not-a-query"),
        ("http", "jane", "FAILED", "INVALID_ARGUMENT", "GET /gateway/api/v1/clusters"),
    ], found
    [table] = json.loads(found[1][5])
    assert (table["table"], table["decision"], table["access"]) == ("payroll", "DENIED", ["no-payroll"]), table
    # A driver that asks after the keys of a table is answered alike for all, and a table that the caller may not see is recorded.
    for table in ("customer", "payroll"):
        primary_keys(server, "jane", "crm", "public", table)
    keys = calls("door = 'flight' AND query LIKE 'Get%'")
    assert [call[:5] for call in keys] == [("flight", "jane", "FINISHED", None, f"GetPrimaryKeys crm.public.{table}") for table in ("customer", "payroll")], keys
    assert json.loads(keys[0][5]) == [] and json.loads(keys[1][5])[0]["decision"] == "DENIED", keys
    own = server.rows("jane", f"SELECT tables FROM {AUDIT} WHERE statement_kind = 'API' AND impersonator IS NULL")
    assert len(own) == 6 and all(json.loads(row["tables"]) == [] for row in own), own
    # An answer that says no is a refusal, whatever its status.
    status, said = server.get(f"{decision}/customer?predicate=drop", user="jane")
    assert (status, said["allow"]) == (200, False), said
    assert server.get(f"{decision}/customer?predicate=select", user="jane")[1]["allow"] is True
    [denied] = calls("query LIKE '% drop'")
    assert denied[:5] == ("http", "jane", "FAILED", "PERMISSION_DENIED", f"GET {decision}/customer drop"), denied
    assert ("drop", "DENIED") in [(table["predicate"], table["decision"]) for table in json.loads(denied[5])], denied


def ones_own_records_do_not_tell_denied_from_missing(server):
    def own():
        columns = 'door, source, statement_kind, query, tables, state, error_code, error_message, output_rows, "end" IS NULL AS open'
        rows = server.rows("jane", f"SELECT {columns} FROM {AUDIT} ORDER BY created, query_id")
        return [row for row in rows if "query_audit" not in row["query"]]

    server.client("sql", "-e", "CREATE TABLE notes.none.unseen AS SELECT 1 AS id", user="jane")
    policy = """{name: no-unseen, version: v1, type: policy, policy: {access: {subjects: {tags: [roles:id:user]}, predicates: ['**'],
        objects: {paths: ['dataos://notes:none/unseen']}, allow: false}}}"""
    assert server.rows("jane", "SELECT id FROM notes.none.unseen") == [{"id": 1}]
    answer = action(server, "admin", "minerva.apply", manifests={"unseen.yaml": policy})
    assert answer["written"] is True, answer
    # The same may be done to the missing one as to any other: the denied one must look no different.
    for place, denied, missing in [("crm/public", "payroll", "no_such"), ("notes/none", "unseen", "absent")]:
        said = []
        for table in (denied, missing):
            before = len(own())
            assert server.get(f"/gateway/api/v1/datapolicy/decision/{place}/{table}", user="jane")[0] == 404
            assert server.get(f"/gateway/api/v1/datapolicy/decision/{place}/{table}?predicate=drop", user="jane")[0] == 404
            primary_keys(server, "jane", *place.split("/"), table)
            name = f"{place.replace('/', '.')}.{table}"
            for sql in (f"SELECT * FROM {name}", f"INSERT INTO {name} VALUES (1)", f"DELETE FROM {name}", f"UPDATE {name} SET id = 1", f"DROP TABLE {name}"):
                server.error("jane", sql)
            said.append([json.dumps(row).replace(table, "NAME") for row in own()[before:]])
        assert len(said[0]) == 8 and said[0] == said[1], [pair for pair in zip(*said) if pair[0] != pair[1]]
    assert action(server, "admin", "minerva.delete", resources=[["policy", "no-unseen"]])["written"] is True
    server.client("sql", "-e", "DROP TABLE notes.none.unseen", user="jane")


def action(server, user, called, /, **body):
    with pyarrow.flight.FlightClient(f"grpc://{server.addresses['flight']}") as client:
        options = pyarrow.flight.FlightCallOptions(headers=[client.authenticate_basic_token(user, server.key(user))])
        try:
            [answer] = client.do_action(pyarrow.flight.Action(called, json.dumps(body).encode()), options)
            return json.loads(answer.body.to_pybytes())
        except pyarrow.flight.FlightError as error:
            return str(error)
        except pyarrow.ArrowException as error:
            return str(error)


def who_changes_what_is_recorded(server):
    def calls(name):
        where = f"statement_kind = 'API' AND query LIKE '{name}%'"
        return [(r["user"], r["state"], r["error_code"], r["query"], r["error_message"]) for r in records(server, "admin", where)]

    manifest = "name: passing\nversion: v1\ntype: user\nuser: {tags: [roles:id:user]}\n"
    assert "operator" in action(server, "jane", "minerva.apply", manifests={"a.yaml": manifest})
    assert "operator" in action(server, "jane", "minerva.delete", resources=[["user", "lena"]])
    assert "operator" in action(server, "jane", "minerva.get", kind="user")
    assert "operator" in action(server, "jane", "minerva.policy.explain", user="lena", sql="SELECT 'geheimsatz'")
    assert "may not manage" in action(server, "jane", "minerva.apikey.create", user="lena", name="stolen", lifetime_seconds=60)
    assert "not the JSON" in action(server, "jane", "minerva.apikey.delete", user={"geheimsatz": 1})
    for name, query in [("minerva.apply", "minerva.apply a.yaml"), ("minerva.delete", "minerva.delete user/lena"), ("minerva.get", "minerva.get user"),
                        ("minerva.policy.explain", "minerva.policy.explain lena"), ("minerva.apikey.create", "minerva.apikey.create lena stolen")]:
        found = [call for call in calls(name) if call[0] == "jane" and call[1] == "FAILED"]
        assert [call[2:4] for call in found] == [("PERMISSION_DENIED", query)], (name, found)
    [misread] = [call for call in calls("minerva.apikey.delete") if call[0] == "jane"]
    assert misread[1:] == ("FAILED", "INVALID_ARGUMENT", "minerva.apikey.delete", "the action's body could not be read"), misread

    before = len(calls("minerva.apply"))
    assert action(server, "admin", "minerva.apply", manifests={"a.yaml": manifest}, dry_run=True)["written"] is False
    assert len(calls("minerva.apply")) == before, "a dry run changes nothing"
    answer = action(server, "admin", "minerva.apply", manifests={"a.yaml": manifest})
    assert answer["written"] is True, answer
    assert calls("minerva.apply")[before:] == [("admin", "FINISHED", None, "minerva.apply a.yaml: created user/passing", None)], calls("minerva.apply")
    answer = action(server, "admin", "minerva.apply", manifests={"a.yaml": "name: x\ntype: nothing\n"})
    assert answer["problems"], answer
    assert [call[:4] for call in calls("minerva.apply")[before + 1:]] == [("admin", "FAILED", "INVALID_ARGUMENT", "minerva.apply a.yaml")], calls("minerva.apply")
    made = action(server, "admin", "minerva.apikey.create", user="lena", name="spare", lifetime_seconds=60)
    server.keys["spare"] = made["key"]
    assert calls("minerva.apikey.create lena spare") == [("admin", "FINISHED", None, "minerva.apikey.create lena spare", None)]
    assert action(server, "admin", "minerva.apikey.delete", user="lena", name="spare") == {"deleted": True}
    assert calls("minerva.apikey.delete lena") == [("admin", "FINISHED", None, "minerva.apikey.delete lena spare", None)]
    assert action(server, "admin", "minerva.delete", resources=[["user", "passing"]])["written"] is True
    [deleted] = calls("minerva.delete user/passing")
    assert deleted[1:3] == ("FINISHED", None) and deleted[3].startswith("minerva.delete user/passing: "), deleted


def primary_keys(server, user, catalog, schema, table):
    def field(number, payload):
        return bytes([number << 3 | 2, len(payload)]) + payload

    name = b"type.googleapis.com/arrow.flight.protocol.sql.CommandGetPrimaryKeys"
    message = field(1, catalog.encode()) + field(2, schema.encode()) + field(3, table.encode())
    with pyarrow.flight.FlightClient(f"grpc://{server.addresses['flight']}") as client:
        options = pyarrow.flight.FlightCallOptions(headers=[client.authenticate_basic_token(user, server.key(user))])
        info = client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(field(1, name) + field(2, message)), options)
        assert client.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 0


def what_cannot_be_recorded_does_not_run(server):
    def ready():
        return server.get("/health/ready")

    decision = "/gateway/api/v1/datapolicy/decision/crm/public/payroll"
    assert ready()[0] == 200
    other = sqlite3.connect(server.folder / "data/audit.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    server.client("sql", "-e", "SELECT 48151 AS it_is_recorded_later")
    until = time.monotonic() + 60
    while ready()[0] == 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert ready() == (503, {"status": "not ready", "resources": "in force", "workers": "alive", "audit": "not written"}), ready()
    assert "INSUFFICIENT_DISK" in server.error("jane", "SELECT 48152 AS never")
    status, said = server.get(decision, user="jane")
    assert (status, said["error"]["code"]) == (503, "INSUFFICIENT_DISK"), said
    for table in ("payroll", "no_such", "customer"):
        try:
            primary_keys(server, "jane", "crm", "public", table)
        except pyarrow.ArrowException as error:
            assert "the audit cannot be written" in str(error), error
        else:
            raise AssertionError(f"`{table}` was answered without a record")
    assert "the audit cannot be written" in action(server, "admin", "minerva.apikey.create", user="lena", name="unseen", lifetime_seconds=60)
    other.execute("ROLLBACK")
    other.close()
    while ready()[0] != 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert server.get(decision, user="jane")[0] == 404
    assert len(records(server, "admin", "query LIKE '%48151%' AND query NOT LIKE '%query_audit%'")) == 1


def nothing_hidden_is_in_it(server):
    files = b"".join(path.read_bytes() for path in Path(server.folder / "data").glob("audit.db*"))
    # Hidden and masked values, keys of users, texts of policies.
    for word in ["kanari1", "kanari2", "kanariplan", "geheimwort", "geheimsatz", "a-wrong-key-that-nobody-may-find", *server.keys.values()]:
        assert word.encode() not in files, word
    for path in Path(server.folder / "data").glob("audit.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def main():
    program, folder = sys.argv[1:]
    plain = Path(folder) / "plain"
    plain.mkdir()
    with Server(program, plain) as server:
        for step in (every_kind_of_end_is_recorded, it_reads_as_a_table, one_sees_ones_own, who_acts_as_another_sees_their_own_deeds_only, sql_does_not_write_it, failed_logins_are_counted,
                     refused_calls_are_recorded,
                     ones_own_records_do_not_tell_denied_from_missing,
                     who_changes_what_is_recorded,
                     what_cannot_be_recorded_does_not_run,
                     nothing_hidden_is_in_it):
            step(server)
            print(f"ok {step.__name__}", flush=True)
        kept = records(server, "jane")
        server.stop()
        print("ok it leaves in order", flush=True)

        # Restarts keep every record.
        server.start()
        again = records(server, "jane")
        # The last one was the reading itself, which has ended since.
        assert again[: len(kept) - 1] == kept[:-1] and len(again) == len(kept) + 1, (len(again), len(kept))
        assert again[len(kept) - 1]["state"] == "FINISHED" and again[len(kept) - 1]["query_id"] == kept[-1]["query_id"]
        assert server.get(f"/gateway/api/v1/query/{kept[0]['query_id']}", user="jane")[0] == 200
        print("ok records survive a restart", flush=True)

        # What runs when the process dies has a record, which says so.
        endless = "WITH RECURSIVE r(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM r WHERE i > 0) SELECT max(i) AS n FROM r"
        environment = {**os.environ, "MINERVA_APIKEY": server.key("jane")}
        running = subprocess.Popen([program, "sql", "--server", server.addresses["flight"], "--user", "jane", "-e", endless],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        until = time.monotonic() + 30
        where = "query LIKE 'WITH RECURSIVE r(i)%SELECT max(i)%'"
        while not (found := records(server, "jane", where)):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert found[0]["state"] != "FAILED" and found[0]["end"] is None, found
        said = server.get(f"/gateway/api/v1/query/{found[0]['query_id']}", user="jane")[1]
        assert said["state"] in ("PLANNING", "RUNNING") and said["end"] is None, said
        server.kill()
        running.wait(timeout=60)
        server.start()
        [found] = records(server, "jane", where)
        assert found["state"] == "FAILED" and "before the query did" in found["error_message"], found
        print("ok a crash leaves a record", flush=True)

        # What runs when it is told to leave is stopped, and recorded as stopped.
        environment["MINERVA_APIKEY"] = server.key("jane")
        running = subprocess.Popen([program, "sql", "--server", server.addresses["flight"], "--user", "jane", "-e", endless.replace("max(i)", "min(i)")],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        where = "query LIKE 'WITH RECURSIVE r(i)%SELECT min(i)%'"
        until = time.monotonic() + 30
        while not records(server, "jane", where):
            assert time.monotonic() < until
            time.sleep(0.1)
        server.stop()
        running.wait(timeout=60)
        server.start()
        [found] = records(server, "jane", where)
        assert found["state"] == "CANCELED" and found["end"] and found["error_code"] == "QUERY_CANCELED", found
        print("ok an orderly end is recorded", flush=True)
        server.stop()
    assert "panicked" not in server.log(), server.log()

    redacting = Path(folder) / "redacting"
    redacting.mkdir()
    with Server(program, redacting, "--audit-redact", "--audit-retention", "1d") as server:
        server.rows("jane", "SELECT id FROM crm.public.customer WHERE name = 'geheim1' AND id < 4711 -- geheim2")
        server.error("jane", "SELECT CAST('geheim3' AS BIGINT)")
        server.error("jane", "SELCT 'geheim4'")
        queries = [record["query"] for record in records(server, "admin", "\"user\" = 'jane'")]
        assert queries[0] == "SELECT id FROM crm.public.customer WHERE name = ? AND id < ?", queries
        assert queries[1].startswith("SELECT CAST(? AS BIGINT)") and queries[2] == "(a text that is no statement)", queries
        # One's own statements of now are one's own; operators see none of their values.
        runtime = "SELECT query, error_message FROM system.runtime.queries WHERE \"user\" = 'jane' AND query LIKE '%FROM crm%'"
        assert "geheim1" in server.rows("jane", runtime)[0]["query"]
        everything = json.dumps(server.rows("admin", "SELECT * FROM system.runtime.queries WHERE \"user\" = 'jane'"))
        assert "geheim" not in everything.replace("geheimwort", ""), everything
        server.stop()
        files = b"".join(path.read_bytes() for path in (redacting / "data").glob("audit.db*"))
        assert b"geheim" not in files and b"4711" not in files
    assert "geheim" not in server.log(), server.log()
    print("ok literals are left out when told to", flush=True)


main()

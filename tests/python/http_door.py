"""The HTTP door as strangers meet it: health, access decisions, the gateway's API, and everything that a client can do wrong.

python http_door.py PROGRAM FOLDER
"""

import base64
import http.client
import json
import re
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

import identity
from minerva_server import Server

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


AUTHORIZE = "/heimdall/api/v1/authorize"


def ask(server, user, predicate, **object_):
    return server.post(AUTHORIZE, {"token": server.key(user), "predicate": predicate, "object": object_})


@check
def health_is_for_everybody_and_its_reasons_for_operators(server):
    assert server.get("/health/live") == (200, {"status": "live"})
    status, said = server.get("/health/ready")
    assert (status, said["status"], "details" in said) == (200, "ready", False), said
    status, said = server.get("/health/ready", user="jane")
    assert (status, "details" in said) == (200, False), said
    status, said = server.get("/health/ready", user="admin")
    details = said["details"]
    assert status == 200 and details["workers"] == 1 and details["looked_at_all_tables"], said
    [closed] = details["closed_tables"]
    assert closed["table"] == "dataos://crm:public/broken" and closed["users"] == ["jane", "lena"], closed
    assert closed["policies"] == ["broken-filter"] and "nowhere" in closed["reason"], closed
    assert server.get("/health/ready", headers={"Authorization": "Bearer wrong"})[0] == 401


@check
def a_changed_manifest_that_is_refused_shows_in_health(server):
    file = server.folder / "resources/bad.yaml"
    file.write_text("name: bad\nversion: v1\ntype: depott\n")
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            refused = server.get("/health/ready", user="admin")[1]["details"]["refused_resources"]
            if refused:
                break
            time.sleep(0.2)
        assert "bad.yaml" in (refused or ""), refused
    finally:
        file.unlink()


@check
def heimdall_decides_as_statements_meet_it(server):
    customer = ["dataos://crm:public/customer"]
    status, said = ask(server, "jane", "select", paths=customer)
    assert status == 200 and said == {
        "allow": True,
        "result": {"id": "jane", "tags": ["roles:id:analyst", "roles:id:user", "users:id:jane"]},
        "valid": True,
    }, said
    assert ask(server, "tom", "select", paths=customer) == (403, {"allow": False, "result": {"id": "tom"}, "valid": True})
    for user, predicate, object_, status in [
        ("jane", "delete", {"paths": customer}, 403),
        ("jane", "select", {"paths": ["dataos://crm:public/payroll"]}, 403),
        ("jane", "select", {"paths": ["dataos://crm:secret/plan"]}, 403),
        ("jane", "select", {"paths": ["dataos://crm:nowhere/none"]}, 403),
        ("jane", "select", {"tags": ["dataos:system:minerva:table:crm:public:customer"]}, 200),
        ("jane", "select", {"tags": ["dataos:system:minerva:table:crm:public:payroll"]}, 403),
        # A path that is allowed does not carry one that is not.
        ("jane", "select", {"paths": customer + ["dataos://crm:secret/plan"]}, 403),
        ("jane", "read", {"paths": ["/reports/2026/q1"]}, 200),
        ("jane", "read", {"paths": ["/other"]}, 403),
        ("admin", "select", {"paths": ["dataos://crm:secret/plan"]}, 200),
    ]:
        got = ask(server, user, predicate, **object_)
        assert got[0] == status and got[1]["allow"] == (status == 200), (user, predicate, object_, got)


@check
def a_token_is_its_own_proof_and_a_wrong_one_is_not_valid(server):
    status, said = server.post(AUTHORIZE, {"token": server.key("jane")})
    assert status == 200 and said["valid"] and said["result"]["id"] == "jane", said
    wrapped = base64.b64encode(json.dumps({"token": server.key("jane"), "cluster": "minerva"}).encode()).decode()
    assert server.post(AUTHORIZE, {"token": wrapped})[0] == 200
    for token in ["", "wrong", "k" * 5000, "\u0000", server.key("jane")[:-1]]:
        status, said = server.post(AUTHORIZE, {"token": token, "predicate": "select", "object": {"paths": ["dataos://crm:public/customer"]}})
        assert (status, said["allow"], said["valid"], "result" in said) == (401, False, False, False), (token, said)
    # Without a token in the body the request's own credentials count; the token goes before them.
    status, said = server.post(AUTHORIZE, {}, user="tom")
    assert status == 200 and said["result"]["id"] == "tom"
    status, said = server.post(AUTHORIZE, {"token": server.key("jane")}, user="tom")
    assert said["result"]["id"] == "jane", said
    context = {"predicate": "select", "object": {"paths": ["dataos://crm:public/customer"]}}
    assert server.post(AUTHORIZE, {"token": server.key("jane"), "context": context})[0] == 200


@check
def a_denied_column_does_not_exist(server):
    """`no-ssn` denies lena the columns that carry PII.Ssn: by every way to ask, `ssn` is as a column that nobody has."""
    table = "crm.public.customer"
    assert [list(row) for row in server.rows("jane", f"SELECT * FROM {table} WHERE id = 1")] == [["id", "name", "email", "ssn", "region"]]
    assert [list(row) for row in server.rows("lena", f"SELECT * FROM {table}")] == [["id", "name", "email", "region"]]
    for sql, name in [
        (f"SHOW COLUMNS FROM {table}", "Column"), (f"DESCRIBE {table}", "Column"),
        ("SELECT column_name FROM crm.information_schema.columns WHERE table_name = 'customer'", "column_name"),
    ]:
        assert "ssn" in [row[name] for row in server.rows("jane", sql)], sql
        assert [row[name] for row in server.rows("lena", sql)] == ["id", "name", "email", "region"], sql
    for sql in [
        "SELECT {} FROM crm.public.customer", "SELECT count(*) FROM crm.public.customer WHERE {} = '222'", "SELECT id FROM crm.public.customer ORDER BY {}",
        "SELECT c.{} FROM crm.public.customer c", "SELECT id FROM crm.public.customer GROUP BY id, {}",
        "SELECT a.id FROM crm.public.customer a JOIN crm.public.customer b ON a.{} = b.id",
        "WITH t AS (SELECT * FROM crm.public.customer) SELECT {} FROM t", "SELECT max({}) OVER () FROM crm.public.customer",
        "SELECT * FROM crm.public.customer WHERE EXISTS (SELECT 1 FROM crm.public.customer x WHERE x.{} = '1')",
        "EXPLAIN SELECT {} FROM crm.public.customer",
    ]:
        denied, missing = (server.error("lena", sql.format(name)) for name in ("ssn", "sxn"))
        strip = lambda text: re.sub(r"query \d+_\w+|\d{8}_\d{6}_\d{5}_\w{5}", "QUERY", text)
        assert strip(denied) == strip(missing).replace("sxn", "ssn"), (sql, denied, missing)
    assert "ssn" not in json.dumps(server.rows("lena", f"EXPLAIN SELECT * FROM {table}"))
    for path, status in [("ssn", 403), ("SSN", 403), ("id", 200)]:
        assert ask(server, "lena", "select", paths=["dataos://crm:public/customer/" + path])[0] == status, path
    assert ask(server, "jane", "select", paths=["dataos://crm:public/customer/ssn"])[0] == 200
    decision = "/gateway/api/v1/datapolicy/decision/crm/public/customer"
    assert [column["name"] for column in server.get(decision, user="lena")[1]["columns"]] == ["id", "name", "email", "region"]
    statements = lambda user: [query for query in server.get("/gateway/api/v1/query/audit?user=lena", user=user)[1]["queries"] if query["statement_kind"] != "API"]
    newest = statements("admin")[0]
    assert newest["tables"][0]["hidden"] == ["ssn"], newest
    assert "ssn" not in json.dumps(statements("lena")[0]["tables"])


@check
def malformed_questions_are_refused_without_repeating_a_token(server):
    token = server.key("jane")
    paths = {"paths": ["a"]}
    for body in [
        "", "{", "[]", "null", "7", '"x"', "\x00", '{"token": 5}', '{"tokens": "x"}', f'{{"token": "{token}", "extra": 1}}',
        json.dumps({"token": token, "predicate": "select"}), json.dumps({"token": token, "object": paths}),
        json.dumps({"token": token, "predicate": "select", "object": {}}), json.dumps({"token": token, "predicate": "", "object": paths}),
        json.dumps({"token": token, "predicate": "select", "object": {"paths": "a"}}),
        json.dumps({"token": token, "predicate": "select", "object": {"paths": ["a"] * 1001}}),
        json.dumps({"token": token, "predicate": "select", "object": {"paths": ["a" * 5000]}}),
        json.dumps({"token": token, "predicate": "x", "object": paths, "context": {"predicate": "x", "object": paths}}),
        "[" * 100_000, json.dumps({}),
    ]:
        status, said = server.post(AUTHORIZE, body)
        assert status == 400 and said["error"]["code"] == "INVALID_ARGUMENT", (body[:80], status, said)
        assert token not in json.dumps(said)
    assert server.http("GET", AUTHORIZE)[0] == 405
    assert server.post(AUTHORIZE, json.dumps({"token": "x" * (1 << 20)}))[0] == 400


@check
def decisions_say_which_masks_and_filters_and_to_operators_what_is_in_them(server):
    path = "/gateway/api/v1/datapolicy/decision/crm/public/customer"
    status, said = server.get(path, user="jane")
    assert status == 200 and said["allow"] and said["user"] == "jane" and said["closed"] is None, said
    masks = {column["name"]: column["mask"] for column in said["columns"]}
    assert masks["email"] == {"policyname": "mask-email", "priority": 10, "operator": "redact"}, masks
    assert masks["id"] is None and [f["policyname"] for f in said["filters"]] == ["own-region"], said
    assert "geheimwort" not in json.dumps(said) and "definition" not in json.dumps(said), said
    status, said = server.get("/gateway/api/v1/datapolicy/decision/crm/public/broken", user="jane")
    assert status == 200 and said["closed"] == {"policies": ["broken-filter"], "reason": None}, said
    # An operator has no such policies; what they are told of a closed table is in health.
    assert server.get(path, user="admin")[1]["filters"] == []
    status, said = server.get(path + "?predicate=delete", user="jane")
    assert status == 200 and said["allow"] is False and said["predicate"] == "delete", said


@check
def what_may_not_be_selected_is_answered_as_what_does_not_exist(server):
    def answer(table, user="jane"):
        status, headers, said = server.http("GET", "/gateway/api/v1/datapolicy/decision/" + table, user)
        name = table.replace("/", ".")
        headers.pop("date", None), headers.pop("content-length", None)
        return status, headers, json.dumps(said).replace(name, "TABLE")

    assert answer("crm/public/payroll") == answer("crm/public/nothing1")
    # A table of which every column is denied.
    assert answer("crm/public/columns") == answer("crm/public/nothing")
    assert answer("crm/secret/plan") == answer("crm/secret/nope")
    # A catalog of which nothing may be seen is no catalog.
    hidden, missing = answer("crm/public/customer", "tom"), answer("abc/public/customer", "tom")
    assert hidden[0] == missing[0] == 404 and hidden[2].replace("crm", "abc") == missing[2], (hidden, missing)


@check
def queries_are_found_by_who_ran_them_and_by_operators(server):
    server.rows("jane", "SELECT id, email FROM crm.public.customer WHERE name <> 'Zoe'")
    server.error("jane", "SELECT * FROM crm.public.payroll")
    status, said = server.get("/gateway/api/v1/query/audit?limit=2", user="jane")
    assert status == 200 and len(said["queries"]) == 2, said
    denied, good = said["queries"]
    assert denied["state"] == "FAILED" and denied["error_code"] == "TABLE_NOT_FOUND" and denied["tables"] == [], denied
    assert good["state"] == "FINISHED" and good["output_rows"] == 2 and good["door"] == "flight", good
    [table] = good["tables"]
    assert (table["catalog"], table["schema"], table["table"], table["policyname"]) == ("crm", "public", "customer", "own-region"), table
    assert {c["name"]: (c["policyname"], c["mask"]) for c in table["columns"]} == {
        "id": (None, None), "name": (None, None), "email": ("mask-email", "redact")}, table
    assert "access" not in table, table
    one = f"/gateway/api/v1/query/{good['query_id']}"
    assert server.get(one, user="jane")[1] == good
    assert server.get(one, user="admin")[1]["user"] == "jane"
    # Somebody else's query is answered as one that never was.
    other, missing = server.get(one, user="tom"), server.get("/gateway/api/v1/query/20200101_000000_00000_aaaaa", user="tom")
    assert other[0] == missing[0] == 404
    assert other[1]["error"]["code"] == missing[1]["error"]["code"]
    assert all(query["user"] == "tom" for query in server.get("/gateway/api/v1/query/audit", user="tom")[1]["queries"])
    assert server.get("/gateway/api/v1/query/audit?user=jane", user="tom")[1]["queries"] == []
    by_admin = server.get(f"/gateway/api/v1/query/audit?query_id={denied['query_id']}", user="admin")[1]["queries"]
    assert [t["decision"] for t in by_admin[0]["tables"]] == ["DENIED"] and by_admin[0]["tables"][0]["access"] == ["no-payroll"], by_admin
    decision = "/gateway/api/v1/datapolicy/decision/crm/public/customer?queryId="
    assert server.get(decision + good["query_id"], user="jane")[1]["queryId"] == good["query_id"]
    assert server.get(decision + "nothing", user="jane")[0] == 404


@check
def records_come_in_pages(server):
    for number in range(7):
        server.rows("jane", f"SELECT {number}")
    seen, following = [], ""
    while True:
        status, said = server.get("/gateway/api/v1/query/audit?limit=3" + following, user="jane")
        assert status == 200, said
        seen += [query["query_id"] for query in said["queries"]]
        if said["next"] is None:
            break
        following = "&next=" + said["next"]
    assert len(seen) == len(set(seen)) and len(seen) >= 9, seen
    assert len(server.get("/gateway/api/v1/query/audit?limit=1000", user="jane")[1]["queries"]) == len(seen)
    for wrong in ["limit=0", "limit=1001", "limit=x", "limits=1", "after=yesterday", "limit=1&limit=2", "limit",
                  "next=x", "next=", "next=20200101_000000_00000_aaaaa"]:
        status, said = server.get("/gateway/api/v1/query/audit?" + wrong, user="jane")
        assert status == 400 and said["error"]["code"] == "INVALID_ARGUMENT", (wrong, said)
    # One's own records are no way into another's list.
    status, said = server.get("/gateway/api/v1/query/audit?next=" + seen[0], user="tom")
    assert status == 400 and "`next`" in said["error"]["message"] and said["error"]["hint"], said
    assert server.get("/gateway/api/v1/query/audit?next=" + seen[0], user="admin")[0] == 200
    assert server.get("/gateway/api/v1/query/audit?after=2099-01-01T00:00:00Z", user="jane")[1]["queries"] == []


@check
def clusters_are_those_that_one_may_use(server):
    status, said = server.get("/gateway/api/v1/clusters", user="jane")
    assert status == 200 and [(c["name"], c["served_here"], c["workers"]) for c in said["clusters"]] == [("minerva", True, 1)], said
    assert server.get("/gateway/api/v1/clusters", user="jane", headers={"cluster-name": "other"})[0] == 404


@check
def nobody_is_anonymous(server):
    for path in ["clusters", "query/audit", "query/x", "datapolicy/decision/crm/public/customer"]:
        path = "/gateway/api/v1/" + path
        for header in [None, "Basic", "Basic !", "Basic " + base64.b64encode(b"jane").decode(), "Bearer x", "Negotiate abc", "Bearer",
                       "Basic " + base64.b64encode(b"tom:" + server.key("jane").encode()).decode(),
                       "Basic " + base64.b64encode(b"\xff\xfe:x").decode()]:
            status, headers, said = server.http("GET", path, headers={"Authorization": header} if header else {})
            assert status == 401 and said["error"]["code"] == "INVALID_CREDENTIALS", (path, header, status, said)
            assert headers["www-authenticate"].startswith("Basic"), headers


@check
def who_may_act_as_another_does(server):
    decision = "/gateway/api/v1/datapolicy/decision/crm/public/customer"
    assert server.get(decision, user="boss")[0] == 404
    status, said = server.get(decision, user="boss", headers={"x-minerva-user": "jane"})
    assert status == 200 and said["user"] == "jane", said
    for other in ["tom", "admin", "nobody", ""]:
        assert server.get(decision, user="boss", headers={"x-minerva-user": other})[0] in (401, 403), other
    assert server.get(decision, user="tom", headers={"x-minerva-user": "jane"})[0] in (401, 403)


@check
def unknown_paths_and_statements_say_so(server):
    for path in ["/", "/nothing", "/gateway/api/v1", "/gateway/api/v1/datapolicy/decision/crm/public", "/health", "/%00", "/../etc/passwd",
                 "/" + "a" * 5000]:
        status, said = server.get(path)
        assert status == 404 and said["error"]["code"] == "NOT_FOUND", (path[:40], status, said)
    for method, path in [("POST", "/v1/statement"), ("GET", "/v1/statement/executing/x/1")]:
        status, _, said = server.http(method, path, body="SELECT 1" if method == "POST" else None)
        assert status == 501 and said["error"]["code"] == "NOT_SUPPORTED", said
    assert server.http("DELETE", "/gateway/api/v1/query/x", user="jane")[0] == 405


# ---- Bytes that are no honest client's ---------------------------------------------------------------------------------


def raw(server, data, within=40, close=False):
    """Sends bytes and returns all that comes back until the server closes."""
    host, port = server.addresses["http"].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=within) as stream:
        try:
            stream.sendall(data)
            if close:
                stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        got = b""
        try:
            while chunk := stream.recv(65536):
                got += chunk
        except ConnectionError:
            pass
        return got


@check
def rubbish_is_refused_and_hurts_nobody(server):
    for data in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        b"rubbish\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 1000, b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(500)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBig: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /heimdall/api/v1/authorize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ]:
        got = raw(server, data, close=True)
        assert not got.startswith(b"HTTP/1.1 2"), (data[:40], got[:200])
        assert server.get("/health/live")[0] == 200


@check
def pipelined_requests_are_answered_in_order(server):
    live = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    got = raw(server, live * 50 + last)
    assert got.count(b"HTTP/1.1 200") == 50 and got.count(b"HTTP/1.1 404") == 1, got[-300:]
    got = raw(server, live + b"\x01\x02 rubbish \r\n\r\n" + live)
    assert got.count(b"HTTP/1.1 200") == 1, got


@check
def slow_clients_are_left_and_others_served(server):
    host, port = server.addresses["http"].rsplit(":", 1)
    begun, left = time.monotonic(), {}

    def dawdle(name, first, more):
        with socket.create_connection((host, int(port)), timeout=60) as stream:
            stream.settimeout(1)
            stream.sendall(first)
            got = b""
            while time.monotonic() - begun < 50:
                try:
                    chunk = stream.recv(1000)
                    if not chunk:
                        break
                    got += chunk
                except TimeoutError:
                    try:
                        stream.sendall(more)
                    except OSError:
                        break
                except OSError:
                    break
            left[name] = (time.monotonic() - begun, got)

    body = b"POST /heimdall/api/v1/authorize HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n{"
    slow = [threading.Thread(target=dawdle, args=case) for case in [
        ("silent", b"", b""), ("head", b"GET /health/live HTTP/1.1\r\n", b"a: b\r\n"), ("body", body, b" ")]]
    for thread in slow:
        thread.start()
    for _ in range(10):
        assert server.get("/health/live")[0] == 200
    for thread in slow:
        thread.join()
    for name, (seconds, got) in left.items():
        assert seconds < 40, f"{name} was kept for {seconds} s"
        assert not got.startswith(b"HTTP/1.1 2"), (name, got)


def over_tls(program, folder):
    """The same door inside TLS, and nothing outside of it."""
    (folder / "resources").mkdir(parents=True)
    identity.prepare(folder)
    flags = ["--tls-cert", folder / "server.pem", "--tls-key", folder / "server.key", "--tls-ca", folder / "ca.pem"]
    with Server(program, folder, *flags) as server:
        host, port = server.addresses["http"].rsplit(":", 1)

        def get(path, certificate=None, headers=(), trust="ca"):
            context = ssl.create_default_context(cafile=folder / f"{trust}.pem")
            if certificate:
                context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
            try:
                connection.request("GET", path, headers=dict(headers))
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
            finally:
                connection.close()

        pair = base64.b64encode(f"admin:{server.keys['admin']}".encode()).decode()
        assert get("/gateway/api/v1/clusters", headers={"Authorization": f"Basic {pair}"})[0] == 200
        # A certificate is its user; with a key beside it, they must agree.
        decision = "/gateway/api/v1/datapolicy/decision/crm/public/customer"
        status, said = get(decision, "jane")
        assert status == 200 and said["user"] == "jane", said
        assert get(decision)[0] == 401 and get(decision, "nobody")[0] == 401
        for certificate, trust in [(None, "other-ca"), ("other-jane", "ca"), ("expired", "ca")]:
            try:
                status = get(decision, certificate, trust=trust)[0]
                raise AssertionError(f"{certificate} trusting {trust} was answered {status}")
            except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
                pass
        got = raw(server, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", close=True)
        assert b"HTTP/1.1 200" not in got and b"live" not in got, got
        server.stop()


def main():
    program, folder = sys.argv[1:]
    with Server(program, folder) as server:
        for function in CHECKS:
            function(server)
            print(f"ok {function.__name__}", flush=True)
        server.stop()
    assert "panicked" not in server.log(), server.log()
    over_tls(program, Path(folder) / "tls")
    print("ok over_tls", flush=True)


main()

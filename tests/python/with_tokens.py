"""Signed tokens over Flight SQL with real clients: accepted, refused, rotated; acting as another; wrong keys.

Usage: python with_tokens.py HOST PORT FOLDER, where identity.py has prepared FOLDER
"""

import base64
import json
import pathlib
import sys
import time

import adbc_driver_manager
import pyarrow
import pyarrow.flight as flight
from adbc_driver_flightsql import DatabaseOptions, dbapi
from cryptography.hazmat.primitives import serialization

import identity

HOST, PORT, FOLDER = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
URI = f"grpc://{HOST}:{PORT}"
KEYS = {name: serialization.load_pem_private_key((FOLDER / f"{name}.pem").read_bytes(), None) for name in identity.ALGORITHMS}
COUNT = "SELECT count(*) FROM gen.tpch.region"
ERRORS = (adbc_driver_manager.Error, flight.FlightError, pyarrow.ArrowException, OSError)
CALL_HEADER = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value


def good(algorithm="EdDSA", **changes):
    return identity.sign(algorithm, f"one-{algorithm}", KEYS[algorithm], **changes)


def ask(sql, **settings):
    with dbapi.connect(URI, db_kwargs=settings, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def bearer(token, sql=COUNT, **settings):
    return ask(sql, **{DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token}", **settings})


def basic(user, password, sql=COUNT):
    return ask(sql, username=user, password=password)


def refused(call, *needles, secret=""):
    try:
        call()
    except ERRORS as error:
        for needle in needles:
            assert needle in str(error), f"`{needle}` is not in: {error}"
        assert not secret or secret not in str(error), "the error repeats the token"
        return str(error)
    raise AssertionError(f"the call succeeded; expected {needles}")


def until(call, what):
    """Waits for a change of the resources to be in force; they are looked at twice a second."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return call()
        except Exception as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}") from error
            time.sleep(0.1)


def every_algorithm_and_every_way():
    for algorithm in identity.ALGORITHMS:
        token = good(algorithm)
        assert bearer(token) == [(5,)], algorithm
        assert basic("jane", token) == [(5,)], algorithm
        wrapped = base64.b64encode(json.dumps({"token": token, "cluster": "minerva"}).encode()).decode()
        assert basic("jane", wrapped) == [(5,)], algorithm
        client = flight.FlightClient(URI)
        header = client.authenticate_basic_token("jane", token)
        assert header == (b"authorization", b"Bearer " + token.encode())
        assert list(client.list_actions(flight.FlightCallOptions(headers=[header])))
    # Somebody whom no manifest declares has what the token says and nothing else.
    assert bearer(good(sub="eve@acme.example")) == [(5,)]
    refused(lambda: bearer(good(sub="eve@acme.example", groups=None)), "does not exist")
    # What is declared of jane comes to what the token says: her role lets her see one more table.
    assert bearer(good(), "SELECT count(*) FROM gen.tpch.nation") == [(25,)]
    refused(lambda: bearer(good(sub="eve"), "SELECT count(*) FROM gen.tpch.nation"), "does not exist")
    refused(lambda: basic("bob", good()), "of another user")


def bad_tokens_are_refused_with_the_reason_and_not_repeated():
    now = int(time.time())
    public = identity.public_pem(KEYS["RS256"])
    stranger = identity.new_key("RS256")
    head = {"typ": "JWT", "kid": "one-RS256"}
    cases = {
        good("RS256", aud="else"): "not meant for Minerva",
        good("ES256", iss="https://evil.example"): "issuer is not declared",
        good(exp=now - 61, iat=now - 100): "expired",
        good(nbf=now + 90): "does not hold yet",
        good(exp=now + 30 * 86400): "lives longer",
        good(sub=None): "no usable user",
        identity.sign("RS256", "one-RS256", stranger): "signature is wrong",
        identity.sign("RS256", "unknown", KEYS["RS256"]): "does not publish",
        identity.forged({**head, "alg": "none"}): "algorithm",
        identity.forged({**head, "alg": "HS256"}, secret=public): "algorithm",
        identity.forged({**head, "alg": "RS256"}, secret=public): "signature is wrong",
        identity.forged({**head, "alg": "ES256", "kid": "one-ES256"}, secret=public): "signature is wrong",
        good()[:-4] + "AAAA": "signature is wrong",
        good() + "\x41" * 20000: "",
        "eyJ.eyJ.x": "malformed",
    }
    for token, why in cases.items():
        refused(lambda: bearer(token), why, secret=token[:60])
        refused(lambda: basic("jane", token), why, secret=token[:60])
    # The issuer's clock may be off by a minute.
    assert bearer(good(iat=now + 30, nbf=now + 30)) == [(5,)]
    assert bearer(good(iat=now - 100, exp=now - 20)) == [(5,)]


def headers_of_any_size_and_shape_end_their_call_and_nothing_else():
    client = flight.FlightClient(URI)
    for value in [b"Basic", b"Basic \xff\xfe", b"Basic " + b"A" * 12000, b"Bearer " + b"A" * 12000, b"Bearer " + b"." * 12000, b"x" * 2_000_000]:
        options = flight.FlightCallOptions(headers=[(b"authorization", value)], timeout=20)
        refused(lambda: list(client.list_actions(options)))
    assert bearer(good()) == [(5,)]


def keys_are_rotated_by_name_while_the_server_runs():
    new = identity.new_key("ES256")
    others = [(name, f"one-{name}", key) for name, key in KEYS.items() if name != "ES256"]
    old, fresh = good("ES256"), identity.sign("ES256", "two", new)
    refused(lambda: bearer(fresh), "does not publish")
    with dbapi.connect(URI, db_kwargs={DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {old}"}, autocommit=True) as kept:

        def on_kept():
            with kept.cursor() as cursor:
                cursor.execute(COUNT)
                return cursor.fetchall()

        assert on_kept() == [(5,)]
        identity.publish(FOLDER, [*others, ("ES256", "one-ES256", KEYS["ES256"]), ("ES256", "two", new)])
        assert until(lambda: bearer(fresh), "the new key") == [(5,)]
        assert on_kept() == [(5,)], "both keys hold"
        # A file that is no key set changes nothing.
        path = FOLDER / "resources" / "jwks.json"
        whole = path.read_text()
        path.write_text(whole[: len(whole) // 2])
        time.sleep(1.5)
        assert bearer(fresh) == [(5,)] and on_kept() == [(5,)]
        identity.publish(FOLDER, [*others, ("ES256", "two", new)])
        until(lambda: refused(lambda: bearer(old), "does not publish"), "the end of the old key")
        refused(on_kept, "does not publish")
    assert bearer(fresh) == [(5,)]


def who_acts_as_another_is_recorded_with_both_names():
    as_jane = {f"{CALL_HEADER}x-minerva-user": "jane"}
    desk = good(sub="dora", groups=["desk"])
    refused(lambda: bearer(desk), "does not exist")
    assert bearer(desk, **as_jane) == [(5,)], "jane may see it"
    mine = bearer(desk, 'SELECT "user", impersonator FROM system.runtime.queries WHERE query LIKE \'%tpch.region%\'', **as_jane)
    assert ("jane", "dora") in mine, mine
    assert all(user == "jane" for user, _ in mine), mine
    for whom in ["bob", "nobody", "root"]:
        refused(lambda: bearer(desk, **{f"{CALL_HEADER}x-minerva-user": whom}), "may not act as another user")
    refused(lambda: bearer(good(sub="eve"), **as_jane), "may not act as another user")
    refused(lambda: bearer(good(sub="root", groups=["operator"]), **as_jane), "may not act as another user")
    assert bearer(good(), **as_jane) == [(5,)], "oneself"
    # A key would last longer than acting as somebody does.
    client = flight.FlightClient(URI)
    acting = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + desk.encode()), (b"x-minerva-user", b"jane")])
    for name, body in {"create": {"user": "jane", "name": "x", "lifetime_seconds": 60}, "get": {}, "delete": {"user": "jane", "name": "x"}}.items():
        action = flight.Action(f"minerva.apikey.{name}", json.dumps(body).encode())
        refused(lambda: list(client.do_action(action, acting)), "may not manage the API keys")
    # On one connection, the two sessions and their handles are apart.
    client = flight.FlightClient(URI)
    me = [(b"authorization", b"Bearer " + good().encode())]
    acting = [(b"authorization", b"Bearer " + desk.encode()), (b"x-minerva-user", b"jane")]
    url, query = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery", b"\x0a\x08SELECT 1"
    command = b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(query)]) + query
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command), flight.FlightCallOptions(headers=me))
    ticket = info.endpoints[0].ticket
    refused(lambda: client.do_get(ticket, flight.FlightCallOptions(headers=acting)).read_all())
    assert client.do_get(ticket, flight.FlightCallOptions(headers=me)).read_all().num_rows == 1


def nothing_in_sql_changes_who_one_is():
    for sql in ["SET ROLE operator", "SET ROLE NONE", "RESET ROLE", "SET SESSION AUTHORIZATION root", "RESET SESSION AUTHORIZATION", "SET SESSION user = 'root'"]:
        refused(lambda: bearer(good(), sql))
    refused(lambda: bearer(good(), "GRANT operator TO jane"))


def wrong_keys_make_one_wait():
    assert basic("short", "short-key") == [(5,)]
    said = [refused(lambda: basic("short", "wrong"), secret="wrong-") for _ in range(13)]
    assert "wrong" in said[0] and "try again in" in said[-1], said
    refused(lambda: basic("short", "short-key"), "try again in")
    assert basic("jane", good()) == [(5,)], "a token is not guessed"


for check in [
    every_algorithm_and_every_way,
    bad_tokens_are_refused_with_the_reason_and_not_repeated,
    headers_of_any_size_and_shape_end_their_call_and_nothing_else,
    keys_are_rotated_by_name_while_the_server_runs,
    who_acts_as_another_is_recorded_with_both_names,
    nothing_in_sql_changes_who_one_is,
    wrong_keys_make_one_wait,
]:
    check()
    print(f"ok {check.__name__}", flush=True)

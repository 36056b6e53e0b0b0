"""Checks with pyarrow.flight, message by message: what drivers do inside, and what they must not be able to do."""

import os
import struct
import threading
import time

import pyarrow as pa
import pyarrow.flight as flight
from shared import ENDLESS, KEY, MILLION, URI, USER, check, connect, raises, some_table


def field(number, payload):
    """A length-delimited protobuf field."""
    head, length = (number << 3) | 2, len(payload)
    out = bytearray()
    for value in (head, length):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out) + payload


def packed(kind, message):
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{kind}".encode()) + field(2, message)


def command(kind, message=b""):
    return flight.FlightDescriptor.for_command(packed(kind, message))


def query(sql):
    return command("CommandStatementQuery", field(1, sql.encode()))


def client(**options):
    return flight.FlightClient(URI, **options)


def signed_in(connection):
    return flight.FlightCallOptions(headers=[connection.authenticate_basic_token(USER, KEY)])


@check
def flight_handshake_answers_a_bearer():
    with client() as connection:
        name, value = connection.authenticate_basic_token(USER, KEY)
        assert name == b"authorization" and value.startswith(b"Bearer "), (name, value)
        raises(flight.FlightUnauthenticatedError, lambda: connection.authenticate_basic_token(USER, "wrong"))


@check
def flight_first_handshake_is_understood():
    class Handler(flight.ClientAuthHandler):
        def __init__(self):
            super().__init__()
            self.token = b""

        def authenticate(self, outgoing, incoming):
            outgoing.write(flight.BasicAuth(USER, KEY).serialize())
            self.token = incoming.read()

        def get_token(self):
            return self.token

    with client() as connection:
        connection.authenticate(Handler())
        info = connection.get_flight_info(query("SELECT 1 AS n"))
        assert connection.do_get(info.endpoints[0].ticket).read_all().to_pydict() == {"n": [1]}


@check
def flight_refuses_every_anonymous_call():
    with client() as connection:
        statement = query("SELECT 1 AS n")
        calls = {
            "get_flight_info": lambda: connection.get_flight_info(statement),
            "get_schema": lambda: connection.get_schema(statement),
            "do_get": lambda: connection.do_get(flight.Ticket(packed("CommandGetSqlInfo", b""))).read_all(),
            "do_put": lambda: connection.do_put(statement, pa.schema([]))[0].close(),
            "list_actions": lambda: list(connection.list_actions()),
            "do_action": lambda: list(connection.do_action(flight.Action("GetSessionOptions", b""))),
            "list_flights": lambda: list(connection.list_flights()),
        }
        for name, call in calls.items():
            # Not every call of pyarrow has an exception of its own for this.
            error = raises(Exception, call)
            assert "no credentials" in str(error), (name, error)


@check
def flight_schema_is_the_same_everywhere():
    with client() as connection:
        options = signed_in(connection)
        statement = query("SELECT 1 AS i, 'x' AS t, CAST(NULL AS DOUBLE) AS f")
        info = connection.get_flight_info(statement, options)
        assert len(info.endpoints) == 1 and info.total_records == -1
        read = connection.do_get(info.endpoints[0].ticket, options).read_all().schema
        asked = connection.get_schema(statement, options).schema
        assert read.equals(info.schema, check_metadata=True), (read, info.schema)
        assert asked.names == read.names and asked.types == read.types, (asked, read)


@check
def flight_reads_a_result_once():
    with client() as connection:
        options = signed_in(connection)
        info = connection.get_flight_info(query("SELECT 1 AS n"), options)
        ticket = info.endpoints[0].ticket
        assert connection.do_get(ticket, options).read_all().num_rows == 1
        raises(pa.ArrowException, lambda: connection.do_get(ticket, options).read_all(), "statement handle")
        made_up = flight.Ticket(packed("TicketStatementQuery", field(1, os.urandom(16))))
        raises(pa.ArrowException, lambda: connection.do_get(made_up, options).read_all(), "statement handle")
        raises(pa.ArrowException, lambda: connection.do_get(flight.Ticket(b"rubbish"), options).read_all())


@check
def flight_answers_metadata_commands():
    with client() as connection:
        options = signed_in(connection)

        def rows(kind, message=b""):
            info = connection.get_flight_info(command(kind, message), options)
            table = connection.do_get(info.endpoints[0].ticket, options).read_all()
            assert table.schema.equals(info.schema, check_metadata=True), kind
            assert connection.get_schema(command(kind, message), options).schema.equals(info.schema), kind
            return table

        assert rows("CommandGetCatalogs").num_rows > 0
        assert rows("CommandGetDbSchemas").num_rows > 0
        assert rows("CommandGetTables").num_rows > 0, "no catalog means all catalogs"
        assert rows("CommandGetTables", field(1, b"")).num_rows == 0, "an empty catalog means none"
        assert rows("CommandGetTableTypes").num_rows == 3
        assert rows("CommandGetXdbcTypeInfo").num_rows > 10
        info = rows("CommandGetSqlInfo")
        assert info.num_rows > 80 and info.column("info_name").to_pylist()[:3] == [0, 1, 2]
        table = field(3, b"t")
        assert rows("CommandGetPrimaryKeys", table).num_rows == 0
        assert rows("CommandGetExportedKeys", table).num_rows == 0
        assert rows("CommandGetImportedKeys", table).num_rows == 0
        assert rows("CommandGetCrossReference", field(3, b"t") + field(6, b"u")).num_rows == 0


@check
def flight_cancels_by_info():
    with client() as connection:
        options = signed_in(connection)

        def act(kind, body):
            return [result.body.to_pybytes() for result in connection.do_action(flight.Action(kind, body), options)]

        waiting = connection.get_flight_info(query(ENDLESS), options)
        assert act("CancelFlightInfo", field(1, waiting.serialize())) == [b"\x08\x01"]
        raises(pa.ArrowException, lambda: connection.do_get(waiting.endpoints[0].ticket, options).read_all(), "statement handle")
        raises(pa.ArrowException, lambda: act("CancelFlightInfo", field(1, waiting.serialize())), "statement handle")

        running = connection.get_flight_info(query(ENDLESS), options)
        reader = connection.do_get(running.endpoints[0].ticket, options)
        timer = threading.Timer(
            1.0, lambda: act("CancelQuery", packed("ActionCancelQueryRequest", field(1, running.serialize())))
        )
        started = time.monotonic()
        timer.start()
        raises(flight.FlightCancelledError, reader.read_chunk, "cancel")
        timer.join()
        assert time.monotonic() - started < 20


@check
def flight_renews_a_waiting_result():
    with client() as connection:
        options = signed_in(connection)
        info = connection.get_flight_info(query("SELECT 1 AS n"), options)
        body = field(1, info.endpoints[0].serialize())
        results = list(connection.do_action(flight.Action("RenewFlightEndpoint", body), options))
        renewed = flight.FlightEndpoint.deserialize(results[0].body.to_pybytes())
        assert renewed.ticket == info.endpoints[0].ticket and renewed.expiration_time is not None
        assert connection.do_get(renewed.ticket, options).read_all().num_rows == 1


@check
def flight_sets_and_closes_a_session():
    with client() as connection, connect() as adbc:
        catalog = some_table(adbc)[0]
        options = signed_in(connection)

        def act(kind, body=b""):
            return list(connection.do_action(flight.Action(kind, body), options))[0].body.to_pybytes()

        value = field(1, catalog.encode())
        wrong = field(1, field(1, b"catalog") + field(2, b"\x19" + struct.pack("<q", 7)))
        assert act("SetSessionOptions", field(1, field(1, b"catalog") + field(2, value))) == b""
        assert catalog.encode() in act("GetSessionOptions")
        assert act("SetSessionOptions", wrong) == field(1, field(1, b"catalog") + field(2, b"\x08\x02"))
        assert act("CloseSession") == b"\x08\x01"
        assert catalog.encode() not in act("GetSessionOptions"), "a closed session is forgotten"


@check
def flight_lists_actions():
    with client() as connection:
        options = signed_in(connection)
        names = {action.type for action in connection.list_actions(options)}
        assert {"CancelFlightInfo", "CreatePreparedStatement", "SetSessionOptions", "CloseSession"} <= names, names
        raises(pa.ArrowException, lambda: list(connection.do_action(flight.Action("NoSuchAction", b""), options)), "NoSuchAction")
        begin = flight.Action("BeginTransaction", packed("ActionBeginTransactionRequest", b""))
        raises(pa.ArrowException, lambda: list(connection.do_action(begin, options)), "transactions")


@check
def flight_messages_fit_the_usual_limit():
    with client(generic_options=[("grpc.max_receive_message_length", 4 << 20)]) as connection:
        options = signed_in(connection)
        info = connection.get_flight_info(query(MILLION), options)
        assert connection.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 1_000_000


@check
def flight_refuses_plans():
    """A plan that was made elsewhere knows no policies: only SQL is understood, whatever the plan is and however it is sent."""
    plan = field(1, field(1, b"\x0a\x03any"))
    with client() as connection:
        options = signed_in(connection)
        raises(pa.ArrowException, lambda: connection.get_flight_info(command("CommandStatementSubstraitPlan", plan), options), "Substrait")
        raises(pa.ArrowException, lambda: connection.do_get(flight.Ticket(packed("CommandStatementSubstraitPlan", plan)), options).read_all())
        action = flight.Action("CreatePreparedSubstraitPlan", packed("ActionCreatePreparedSubstraitPlanRequest", plan))
        raises(pa.ArrowException, lambda: list(connection.do_action(action, options)), "Substrait")
        writer, _ = connection.do_put(command("CommandStatementSubstraitPlan", plan), pa.schema([]), options)
        raises(pa.ArrowException, writer.close)


@check
def flight_survives_rubbish():
    with client() as connection:
        options = signed_in(connection)
        for cmd in (b"", b"rubbish", packed("CommandNoSuchThing", b""), packed("CommandStatementQuery", b"\xff\xff")):
            raises(pa.ArrowException, lambda: connection.get_flight_info(flight.FlightDescriptor.for_command(cmd), options))
        for kind in ("CreatePreparedStatement", "CancelFlightInfo", "SetSessionOptions", "minerva.apikey.create"):
            raises(pa.ArrowException, lambda: list(connection.do_action(flight.Action(kind, b"\xff\xff"), options)))
        path = flight.FlightDescriptor.for_path("a", "b")
        raises(pa.ArrowException, lambda: connection.get_flight_info(path, options))
        info = connection.get_flight_info(query("SELECT 1 AS n"), options)
        assert connection.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 1

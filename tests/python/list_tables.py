"""Prints what a driver lists over all catalogs (GetTables without a catalog): the seconds that it took, and a line `catalog.schema.table` for each table."""

import sys
import time

import pyarrow.flight as flight

host, port, user, key = sys.argv[1:]
name = b"type.googleapis.com/arrow.flight.protocol.sql.CommandGetTables"
# An `Any` with the name of the message; the message itself is empty.
command = flight.FlightDescriptor.for_command(bytes([10, len(name)]) + name)
with flight.FlightClient(f"grpc://{host}:{port}") as client:
    options = flight.FlightCallOptions(headers=[client.authenticate_basic_token(user, key)])
    begun = time.monotonic()
    info = client.get_flight_info(command, options)
    rows = client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist()
    print(time.monotonic() - begun)
    for row in rows:
        print(row["catalog_name"], row["db_schema_name"], row["table_name"], sep=".")

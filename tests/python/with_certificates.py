"""Client certificates over Flight SQL with real clients.

Usage: python with_certificates.py HOST PORT FOLDER BOBS_KEY, where identity.py has prepared FOLDER
"""

import pathlib
import sys

import adbc_driver_manager
import pyarrow
import pyarrow.flight as flight
from adbc_driver_flightsql import DatabaseOptions, dbapi

HOST, PORT, FOLDER, BOBS_KEY = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4]
ERRORS = (adbc_driver_manager.Error, flight.FlightError, pyarrow.ArrowException, OSError)


def text(name):
    return (FOLDER / name).read_text()


def ask(certificate=None, **settings):
    """Who one is: the user of the statement that asks."""
    if certificate:
        settings[DatabaseOptions.MTLS_CERT_CHAIN.value] = text(f"{certificate}.pem")
        settings[DatabaseOptions.MTLS_PRIVATE_KEY.value] = text(f"{certificate}.key")
    settings[DatabaseOptions.TLS_ROOT_CERTS.value] = text("ca.pem")
    with dbapi.connect(f"grpc+tls://{HOST}:{PORT}", db_kwargs=settings, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT \"user\" FROM system.runtime.queries ORDER BY created DESC LIMIT 1")
            return cursor.fetchall()[0][0]


def refused(call, *needles):
    try:
        found = call()
    except ERRORS as error:
        assert all(needle in str(error) for needle in needles), f"{needles} are not in: {error}"
        return
    raise AssertionError(f"the call succeeded with {found}; expected {needles}")


def a_certificate_is_its_user():
    assert ask("jane") == "jane"
    assert ask("robot") == "robot"
    client = flight.FlightClient(
        f"grpc+tls://{HOST}:{PORT}", tls_root_certs=text("ca.pem"), cert_chain=text("jane.pem"), private_key=text("jane.key")
    )
    assert list(client.list_actions())
    refused(lambda: ask("nobody"), "is no user's")
    refused(lambda: ask("jane-elsewhere"), "is no user's")


def one_that_no_authority_has_signed_or_that_is_over_is_not_let_in():
    for certificate in ["other-jane", "expired", "server"]:
        refused(lambda: ask(certificate))


def other_credentials_must_be_of_the_same_user():
    bob = {"username": "bob", "password": BOBS_KEY}
    assert ask(**bob) == "bob", "a certificate is not needed"
    assert ask("nobody", **bob) == "bob", "one that is nobody's changes nothing"
    refused(lambda: ask("jane", **bob), "different users")
    refused(lambda: ask("jane", username="jane", password="wrong"), "wrong")
    refused(lambda: ask(), "no credentials")


for check in [
    a_certificate_is_its_user,
    one_that_no_authority_has_signed_or_that_is_over_is_not_let_in,
    other_credentials_must_be_of_the_same_user,
]:
    check()
    print(f"ok {check.__name__}", flush=True)

"""Exercises a Flight SQL server with the drivers that people use.

Usage: python flight_sql.py HOST PORT USER KEY

Prints `ok NAME` for each check and leaves with 1 at the first that fails. The server needs at least one table that USER
may select from; its name does not matter. Needs the packages of requirements.txt and nothing else.
"""

import sys

import shared

import with_adbc  # noqa: F401  registers its checks
import with_flight  # noqa: F401  registers its checks
import with_parameters  # noqa: F401  registers its checks

if __name__ == "__main__":
    sys.exit(shared.run_checks())

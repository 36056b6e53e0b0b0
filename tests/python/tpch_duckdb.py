"""The TPC-H queries on DuckDB, as CSV: python tpch_duckdb.py FOLDER-OF-PARQUET FOLDER-OF-QUERIES."""

import csv
import pathlib
import sys

import duckdb


def main(lake: pathlib.Path, queries: pathlib.Path) -> None:
    connection = duckdb.connect()
    for file in sorted(lake.glob("*.parquet")):
        connection.execute(f"CREATE VIEW {file.stem} AS SELECT * FROM read_parquet('{file}')")
    out = csv.writer(sys.stdout, lineterminator="\n")
    for number in range(1, 23):
        sys.stdout.write("mark\n==== query\n")
        result = connection.execute((queries / f"q{number}.sql").read_text())
        out.writerow([column[0] for column in result.description])
        for row in result.fetchall():
            out.writerow(["" if value is None else value for value in row])


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))

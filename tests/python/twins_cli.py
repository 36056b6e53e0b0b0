"""The twins of twins.py over the program that people use: what `minerva sql` prints, on which stream, and how it leaves.

Usage: python twins_cli.py MINERVA DATA [--depot files] [--seed N] [--statements N] -- ADDRESS_A KEY_A ADDRESS_B KEY_B

Each statement runs as a process of its own with the output formats in turn. Standard output must be the same (its lines in any order where the
statement has none), as must be the errors and the exit code.
"""

import argparse
import itertools
import os
import subprocess
import sys

import twins

LINES = ["CSV", "JSON", "TSV", "ALIGNED", "MARKDOWN"]


def run(arguments, address, key, sql, form):
    command = [arguments.minerva, "sql", "--server", address, "--data", arguments.data, "-u", "analyst", "--output-format", form, "-e", sql]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MINERVA_APIKEY": key, "NO_COLOR": "1"}, timeout=120, stdin=subprocess.DEVNULL)
    # How long it took is for chance to decide.
    return done.returncode, done.stdout, twins.steady(done.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("minerva")
    parser.add_argument("data")
    parser.add_argument("servers", nargs=4)
    parser.add_argument("--depot", choices=["files", "lite", "pg", "mixed"], default="files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--statements", type=int, default=60)
    arguments = parser.parse_args()
    grammar, forms = twins.Grammar(arguments.seed), itertools.cycle(LINES)
    catalog, schema = twins.governed_place(arguments.depot)
    templates = [*twins.BY_HAND, *(grammar.statement() for _ in range(arguments.statements))]
    compared = failed = 0
    for template in templates:
        template, _, flags = template.partition(" --")
        for name in twins.COLUMNS:
            template = template.replace("{%s}" % name, f"{catalog}.{schema}.{name}")
        form = next(forms)
        seen = ([], [])
        for _ in range(twins.ATTEMPTS):
            for index in (0, 1):
                code, out, err = run(arguments, arguments.servers[2 * index], arguments.servers[2 * index + 1], template, form)
                lines = out.splitlines()
                seen[index].append((code, tuple(lines if "ordered" in flags else sorted(lines)), twins.VALUES.sub("VALUE", err.replace(template, "")) if code else err))
            # What is not steady on one server must be met on both.
            if set(seen[0]) & set(seen[1]):
                break
        else:
            print(f"DIVERGENCE over minerva sql ({form})\n{template}\n---- one\n{seen[0][-1]}\n---- other\n{seen[1][-1]}", flush=True)
            return 1
        compared += 1
        failed += seen[0][-1][0] != 0
        if not twins.HIDDEN.search(template):
            for _, lines, err in seen[0]:
                assert not twins.HIDDEN.search(" ".join([*lines, err])), (template, lines, err)
    print(f"{compared} statements over minerva sql, {failed} of them errors")
    return 0 if compared > 50 and failed * 2 < compared else 1


if __name__ == "__main__":
    sys.exit(main())

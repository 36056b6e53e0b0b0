# `make test` does all that the tests need: it builds once, in release mode, and fetches the Python clients into a private folder.
TARGET := $(or $(CARGO_TARGET_DIR),$(HOME)/.cache/minerva-target)
VENV := $(TARGET)/test-venv
export CARGO_TARGET_DIR := $(TARGET)
export MINERVA_TEST_PYTHON := $(VENV)/bin/python

.PHONY: run test check fmt bench quick docs fuzz clean-data

run:
	cargo run --release -- demo

# Programs, libraries and tests share one profile, so that DataFusion is built once.
test: $(VENV)/ready
	cargo test --release --workspace --no-fail-fast

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
	MINERVA_WRITE_DOCS=1 cargo test --release --workspace docs

# TARGET_NAME is `manifests` or `copy`.
fuzz:
	cd fuzz && cargo +nightly fuzz run $(or $(TARGET_NAME),manifests)

$(VENV)/ready: tests/python/requirements.txt
	@command -v python3 >/dev/null || { echo "the tests need python3 with venv; install it first" >&2; exit 1; }
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
	touch $@

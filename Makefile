# `make demo` and `make test` work as the first command on a fresh clone: they create .venv, install what they need,
# build and run. What is done leaves a stamp, so a second run does only what changed.

PYTHON ?= python3
CARGO  ?= cargo
DEMO   ?= examples/python/demo.py
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
PEERS_ARGS ?=
CURVES_ARGS ?=
CLIENTS_ARGS ?=
BENCH_TARGET = $(abspath $(or $(CARGO_TARGET_DIR),target))
INTEROP_ARGS ?=

VENV := .venv
PY   := $(VENV)/bin/python
PIP  := $(PY) -m pip install --quiet --disable-pip-version-check
INTEROP := tests/interop/.build

# The environment that maturin gives to cargo. Clippy gets the same, or each of the two would rebuild pyo3 after the other.
PYO3_ENV = PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON="$(abspath $(PY))" PYTHON_SYS_EXECUTABLE="$(abspath $(PY))" \
	PYO3_ENVIRONMENT_SIGNATURE="$$($(PY) -c 'import sys; print(f"cpython-{sys.version_info[0]}.{sys.version_info[1]}-64bit")')" \
	PYO3_CONFIG_FILE="$$(ls -t "$${CARGO_TARGET_DIR:-$(CURDIR)/target}"/maturin/pyo3-config-*-abi3.txt | head -n 1)"

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup build demo test test-core test-rust test-python test-stubs test-interop interop-tools interop-mosquitto \
	lint docs pictures trained trained-wheel bench bench-python bench-clients bench-peers bench-curves bench-idle \
	bench-instructions bench-instructions-save valgrind fmt clean

help:
	@echo "make demo          an in-process broker, this machine's telemetry, a live table"
	@echo "make test          everything that continuous integration runs"
	@echo "make test-core     the core without sockets, clock or tokio"
	@echo "make test-rust     unit, integration, simulation, benches once, doctests"
	@echo "make test-python   pytest tests/python        (PYTEST_ARGS='-k name')"
	@echo "make test-stubs    the .pyi file against the extension module"
	@echo "make test-interop  foreign clients and brokers (INTEROP_ARGS='-k paho', INTEROP_BROKER=ferromq|mosquitto|both)"
	@echo "make docs          the site in site/, and rustdoc in target/doc"
	@echo "make lint bench fmt clean"
	@echo "make bench-clients CPU per message of the Rust client beside rumqttc and Paho's in C (CLIENTS_ARGS=...)"
	@echo "make bench-peers   CPU per delivery of the broker beside mosquitto and others (PEERS_ARGS=...)"
	@echo "make bench-curves  the broker as its load grows, in overload, in storms (CURVES_ARGS=...)"
	@echo "make bench-idle    memory and CPU of connections at rest, beside mosquitto (BENCH_ARGS='--connections 5000')"
	@echo "make trained       the ferromq program as it is shipped, profile-guided: target/trained/ferromq"
	@echo "make trained-wheel the wheel as it is shipped, the same way: target/trained/wheels"
	@echo "make bench-instructions  instruction counts against the committed baseline; -save renews it"
	@echo "make bench-python  CPU per message beside other libraries, and the cost of a test (BENCH_ARGS=...)"

# --- what the rest stands on --------------------------------------------------------------------------------------

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "FerroMQ needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-venv pyproject.toml
	$(PIP) --group demo
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-venv pyproject.toml
	$(PIP) --group dev
	@touch $@ $(VENV)/.stamp-demo

$(VENV)/.stamp-docs: $(VENV)/.stamp-venv pyproject.toml
	$(PIP) --group docs
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-dev
	$(PIP) --group bench
	@touch $@

RUST_SOURCES := $(shell find src -name '*.rs') Cargo.toml Cargo.lock

# Order-only on the demo tools (maturin is among them): new Python tools alone are no reason to build again.
$(VENV)/.stamp-build: $(RUST_SOURCES) pyproject.toml | $(VENV)/.stamp-demo
	$(VENV)/bin/maturin develop
	@touch $@

setup: $(VENV)/.stamp-dev interop-tools
build: $(VENV)/.stamp-build

# --- run ----------------------------------------------------------------------------------------------------------

demo: $(VENV)/.stamp-build
	$(PY) $(DEMO) $(DEMO_ARGS)

bench:
	$(CARGO) bench

# With the extension module as wheels have it that are not trained. mosquitto's rows stay empty where it is not installed
# (make interop-mosquitto).
bench-python: $(VENV)/.stamp-bench
	$(VENV)/bin/maturin develop --release
	@touch $(VENV)/.stamp-build
	$(PY) benches/python $(BENCH_ARGS)

# Paho's client in C takes part where libpaho-mqtt-dev is installed.
bench-clients:
	$(CARGO) build --release --no-default-features --features cli --bin ferromq
	cd benches/clients && $(CARGO) build --release --target-dir "$(BENCH_TARGET)/clients"
	$(PYTHON) benches/clients --broker "$(BENCH_TARGET)/release/ferromq" \
		--clients "$(BENCH_TARGET)/clients/release/clients" $(CLIENTS_ARGS)

# What helps to measure needs a release build, and not the minutes that the one for a release takes.
BENCH_ENV = CARGO_PROFILE_BENCH_LTO=thin CARGO_PROFILE_BENCH_CODEGEN_UNITS=8
EXAMPLE = $(BENCH_ENV) $(CARGO) build --profile bench --no-default-features --features cli --example

# The broker beside mosquitto, and beside others: make bench-peers PEERS_ARGS="--broker 'flashmq=flashmq ... {port}'".
# With PEERS_ARGS=--floor also beside a relay that does the least that can be done.
bench-peers: interop-mosquitto
	$(CARGO) build --release --no-default-features --features cli --bin ferromq
	cd benches/grpc && $(CARGO) build --release --target-dir "$(BENCH_TARGET)/grpc"
	$(if $(findstring --floor,$(PEERS_ARGS)),$(EXAMPLE) relay)
	$(PYTHON) benches/e2e $(PEERS_ARGS)

# The program as it is shipped: optimised for what brokers really do, in target/trained/ferromq.
trained:
	$(PYTHON) benches/e2e/trained.py --cargo "$(CARGO)" $(TRAINED_ARGS)

# The same for wheels, in target/trained/wheels: optimised for what clients and brokers in Python do.
trained-wheel: $(VENV)/.stamp-bench interop-mosquitto
	$(PY) benches/e2e/trained.py --wheel --maturin "$(VENV)/bin/maturin" $(TRAINED_ARGS)

# What a message costs as connections, subscriptions, topics and payloads grow; overload; storms.
bench-curves:
	$(CARGO) build --release --no-default-features --features cli --bin ferromq
	$(EXAMPLE) seeded
	$(PYTHON) benches/e2e/curves.py $(CURVES_ARGS)

bench-idle: interop-mosquitto
	$(EXAMPLE) relay
	$(BENCH_ENV) $(CARGO) bench --bench idle --no-default-features --features cli -- \
		--relay "$(BENCH_TARGET)/release/examples/relay" $(BENCH_ARGS)

# For no processor in particular, whatever flags this machine sets, so that the counts are those of every machine; one
# codegen unit, so that inlining does not depend on how the code was cut.
INSTRUCTIONS_ENV = CARGO_PROFILE_BENCH_LTO=thin CARGO_PROFILE_BENCH_CODEGEN_UNITS=1 RUSTFLAGS=
INSTRUCTIONS = $(INSTRUCTIONS_ENV) $(CARGO) bench --bench instructions --no-default-features --

# Counted on x86-64 alone: other processors have other instructions.
bench-instructions: valgrind
	@if [ "$$(uname -m)" != x86_64 ]; then echo "instructions are counted on x86-64 only" >&2; \
	elif ! command -v valgrind >/dev/null; then \
		echo "instructions are not counted: valgrind is missing; install it with: sudo apt-get install valgrind" >&2; \
	else $(INSTRUCTIONS) $(BENCH_ARGS); fi

bench-instructions-save: valgrind
	$(INSTRUCTIONS) --save --repeat

valgrind:
	@if command -v valgrind >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq valgrind; \
	else echo "valgrind is missing; install it with: sudo apt-get install valgrind" >&2; fi

# --- test ---------------------------------------------------------------------------------------------------------

test: test-core lint docs test-rust bench-instructions test-python test-stubs test-interop

# The protocol core must build where there is no tokio, no socket crate and no operating system to poll.
test-core:
	$(CARGO) clippy --no-default-features --lib -- -D warnings
	@$(CARGO) tree --no-default-features --edges normal --prefix none | awk '{ print $$1 }' | sort -u > .core-tree; \
	found=$$(grep -E '^(tokio|mio|socket2|rustls|serde|clap|rand|pyo3|arrow-array|parquet)$$' .core-tree); rm -f .core-tree; \
	if [ -n "$$found" ]; then echo "the core depends on: $$found" >&2; exit 1; fi; \
	echo "the core has no runtime among its dependencies"

# Benches run once each, in test mode, so that they never rot.
test-rust:
	$(CARGO) test --all-targets
	$(CARGO) test --doc

# Some tests, and what the documentation shows of it, compare with mosquitto.
test-python: $(VENV)/.stamp-dev $(VENV)/.stamp-build interop-mosquitto
	$(PY) -m pytest $(PYTEST_ARGS)

test-stubs: $(VENV)/.stamp-dev $(VENV)/.stamp-build
	$(PY) -m mypy.stubtest ferromq._ferromq

lint: $(VENV)/.stamp-dev $(VENV)/.stamp-build
	$(CARGO) fmt --check
	$(PYO3_ENV) $(CARGO) clippy --lib --features python -- -D warnings
	$(CARGO) clippy --all-targets -- -D warnings
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/basedpyright

# Strictly: a link or a reference that leads nowhere fails. Nothing is fetched, and site/ opens from the disk.
docs: $(VENV)/.stamp-docs
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --config-file docs/mkdocs.yml

# What the example notebook shows, for the guide. It is run again by test-python, and drawn again when it changes.
pictures: $(VENV)/.stamp-dev $(VENV)/.stamp-build
	$(PY) docs/pictures.py

# --- interop ------------------------------------------------------------------------------------------------------
# Each tool is installed when this may be done here; otherwise its tests are skipped and say which command helps.

test-interop: $(VENV)/.stamp-dev $(VENV)/.stamp-build interop-tools
	$(PY) -m pytest tests/interop $(INTEROP_ARGS)

interop-tools: interop-mosquitto $(INTEROP)/.stamp-npm $(INTEROP)/.stamp-go

interop-mosquitto:
	@if command -v mosquitto && command -v mosquitto_sub; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq mosquitto mosquitto-clients; \
	else echo "mosquitto is missing; install it with: sudo apt-get install mosquitto mosquitto-clients" >&2; fi

$(INTEROP)/.stamp-npm: tests/interop/js/package.json tests/interop/js/package-lock.json
	@mkdir -p $(INTEROP)
	@if command -v npm >/dev/null; then \
		cd tests/interop/js && npm ci --no-audit --no-fund --loglevel=error && touch ../.build/.stamp-npm; \
	else echo "npm is missing: the MQTT.js tests will be skipped; install Node.js 18 or newer" >&2; fi

$(INTEROP)/.stamp-go: $(wildcard tests/interop/go/*/*.go) tests/interop/go/go.mod tests/interop/go/go.sum
	@mkdir -p $(INTEROP)
	@if command -v go >/dev/null; then \
		cd tests/interop/go && go build -o ../.build/ ./... && touch ../.build/.stamp-go; \
	else echo "go is missing: the Paho Go tests will be skipped; install Go 1.24 or newer" >&2; fi

# --- keep ---------------------------------------------------------------------------------------------------------

fmt: $(VENV)/.stamp-dev
	$(CARGO) fmt
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

clean:
	$(CARGO) clean
	rm -rf $(VENV) $(INTEROP) site tests/interop/js/node_modules python/ferromq/*.so .pytest_cache .mypy_cache .ruff_cache

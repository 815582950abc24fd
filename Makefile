# Bare `make` lists the verbs. Continuous integration calls the same ones (.ci/run).
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
STREAMS := .venv-streams
UV_VERSION := 0.13.8
# One thread each for two test workers; benchmarks set their own.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
SOURCES := schemas detectors streams tests benchmarks deploy examples

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast recovery fuzz faults soak soak-peers check format bench bench-quick bench-engine bench-ingest bench-tap bench-detection bench-samples bench-stream peers streams broker-jars schemas lock clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

setup: $(VENV)/.installed ## make the virtual environment, with exactly the locked versions

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## attack a small model and watch the alert come (about a minute, no Java)
	@$(BIN)/hydrophone demo

test: setup ## every test; those against a real Kafka broker skip without Java 17 and Maven
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --durations 15

test-fast: setup ## the tests that need neither broker nor minutes
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m "not broker and not statistical and not slow"

recovery: setup ## crashes, rebalances and zombies by the ten thousand (minutes)
	HYDROPHONE_THOROUGH=1 $(TEST_ENV) $(BIN)/python -m pytest tests/property/test_recovery_machine.py --timeout 3600

fuzz: setup ## 5,000 hostile inputs for every parser (minutes)
	HYDROPHONE_FUZZ_EXAMPLES=5000 $(TEST_ENV) $(BIN)/python -m pytest -n 0 tests/fuzz

faults: setup ## every fault of docs/reliability.md on a real broker, the long ones too; ARGS="-m thorough": those alone
	HYDROPHONE_THOROUGH=1 HYDROPHONE_REQUIRE_BROKER=1 $(TEST_ENV) $(BIN)/python -m pytest -n 2 --timeout 900 tests/fault tests/integration $(ARGS)

soak: setup ## three workers under random faults, 2,000 windows and more; ARGS="--seed 7" runs a series again
	$(TEST_ENV) $(BIN)/python -m benchmarks.soak $(ARGS)

soak-peers: setup streams ## the same faults against Faust's and quixstreams' windows
	$(TEST_ENV) $(BIN)/python -m benchmarks.soak_peers $(ARGS)

check: setup ## lint, types, layering, stale generated files
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff lay the code out
	$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	$(BIN)/ruff format --quiet $(SOURCES)

bench: bench-engine bench-ingest bench-tap ## measure against the goals (minutes); writes benchmarks/results

bench-engine: setup peers ## the window test against alibi-detect
	$(BIN)/python -m benchmarks.engine

bench-ingest: setup ## the processor against a bare consume loop, on a real broker
	$(BIN)/python -m benchmarks.ingest

bench-tap: setup ## what a tap costs the model
	$(BIN)/python -m benchmarks.tap

bench-detection: setup ## power, level and benign change on Fashion-MNIST (hours; the first run trains and attacks)
	$(BIN)/python -m benchmarks.detection

bench-samples: setup ## verdicts on single rows beside the published tables (minutes; the first run attacks three models, an hour)
	$(TEST_ENV) $(BIN)/python -m benchmarks.samples $(ARGS)

bench-stream: setup streams ## the stream side against other libraries, with and without its guarantees (half an hour)
	$(BIN)/python -m benchmarks.stream

bench-quick: setup ## a short run of each benchmark that needs no second environment, results thrown away
	$(BIN)/python -m benchmarks.engine --quick --out $$(mktemp -d)
	$(BIN)/python -m benchmarks.ingest --quick --out $$(mktemp -d)
	$(BIN)/python -m benchmarks.tap --quick --out $$(mktemp -d)
	$(TEST_ENV) $(BIN)/python -m benchmarks.soak --quick --out $$(mktemp -d)

peers: $(PEERS)/.installed ## the environment of the libraries we compare with (they pin an old numpy)

$(PEERS)/.installed: benchmarks/peers/requirements.lock | setup
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --require-hashes -r benchmarks/peers/requirements.lock
	@touch $@

streams: $(STREAMS)/.installed ## the environment of the stream libraries we compare with

$(STREAMS)/.installed: benchmarks/peers/streams.lock | setup
	$(PYTHON) -m venv $(STREAMS)
	$(BIN)/uv pip install --quiet --python $(STREAMS)/bin/python --require-hashes -r benchmarks/peers/streams.lock
	@touch $@

broker-jars: setup ## fetch Apache Kafka's jars for the tests (Java 17, Maven)
	$(BIN)/python deploy/broker/kraft.py fetch

schemas: setup ## regenerate the published JSON Schemas, and what docs/siem.md shows
	$(BIN)/python -m hydrophone.schemas.publish docs/schemas
	$(BIN)/python -m hydrophone.schemas.siem.document docs

lock: setup ## resolve the versions anew
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --extra all --extra dev --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --output-file benchmarks/peers/requirements.lock benchmarks/peers/requirements.in
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --output-file benchmarks/peers/streams.lock benchmarks/peers/streams.in

clean: ## remove what the verbs made
	rm -rf $(VENV) $(PEERS) $(STREAMS) hydrophone-demo deploy/broker/target .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

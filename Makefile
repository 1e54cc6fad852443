.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
HTTP ?= 127.0.0.1:8080
GRPC ?= $(shell at='$(HTTP)'; port=$${at/*:/}; echo $${at%:*}:$$((port ? port + 1 : 0)))# one port higher, so that both move
CALIBRATIONS = $(wildcard var/calibrations)
SOAK ?= 1h
WORKERS ?= $(shell expr $$(nproc) + 1)# one more than cores, as tests wait for processes that start
DEEP := tests/policy tests/wire tests/contract tests/simulation tests/cli/test_buckets.py \
  tests/export/test_equality.py tests/models/test_clips.py tests/models/test_digits.py tests/models/test_glyphs.py \
  tests/models/test_language.py tests/loadtests/test_soak.py tests/data tests/evaluator/tasks tests/evaluator/test_gates.py
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONDONTWRITEBYTECODE # or every process compiles TensorFlow again, which takes longer than all else in its start

.PHONY: help demo serve test test-deep bench loadtest soak openset gpu-check check fix protos lock system-packages clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BIN)/.demo ## Train, serve and compare with Keras: 200 clients; sequences, dates, strange pictures
	sluice demo

serve: $(BIN)/.demo ## Serve the example models on HTTP=127.0.0.1:8080, and gRPC one port higher, or GRPC=HOST:PORT
	sluice models build temperature dates
	sluice serve --models var/models --http $(HTTP) --grpc $(GRPC) $(CALIBRATIONS:%=--calibrations %)

test: $(BIN)/.dev ## Run all tests, in about ten minutes on two cores
	coverage erase
	coverage run -m pytest tests/policy -q --numprocesses $(WORKERS)
	coverage combine --quiet
	coverage report
	pytest --ignore=tests/policy --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 25

test-deep: $(BIN)/.dev ## Run the tests with far more examples, and those marked deep, about twenty minutes
	TEST_DEEP=1 pytest $(DEEP) tests/wheel -m "" --numprocesses $(WORKERS) --dist loadfile --timeout 1800 --durations 25

bench: $(BIN)/.dev ## Measure every door beside the bare model, about 20 minutes; BENCH="--only http --rounds 3"
	python -m loadtests.bench $(BENCH)

loadtest: $(BIN)/.dev ## Send a mixed load for 90 seconds, check every answer, write a page; LOADTEST="-u 50 --shape spike"
	python -m loadtests.locust $(LOADTEST)

soak: $(BIN)/.dev ## Load a gateway for an hour, killing its model server now and then; SOAK=60s for a try
	python -m loadtests.soak --length $(SOAK)

openset: $(BIN)/.dev ## Measure every method that says "none of these", five seeds, about 15 minutes; OPENSET="--docs"
	python -m loadtests.openset $(OPENSET)

gpu-check: $(BIN)/.dev ## Compare a model server's answers with the CPU's, choose batch sizes; GPU_CHECK="--backend gpu:8500"
	python -m loadtests.gpu_check $(GPU_CHECK)

check: $(BIN)/.dev ## Lint, types, layers, generated files
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python protos/generate.py --check
	python docs/generate.py --check

fix: $(BIN)/.dev ## Format, and mend what the linter can
	ruff check --fix .
	ruff format .

protos: $(BIN)/.dev ## Generate the protobuf classes again
	python protos/generate.py

lock: $(BIN)/.dev ## Choose and lock the versions of all dependencies again
	requirements/lock.sh

system-packages: ## Install with apt the programs that some tests and the bench use
	@requirements/system.sh

clean: ## Remove what was built, except the virtual environment
	rm -rf var .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage

# One environment for everything; `demo` installs less than `dev`, which holds the same versions and more.
$(BIN)/uv: requirements/uv.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sluice needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	touch $@

# Three workers of the tests would compile TensorFlow and the rest at the same time, each for itself.
$(BIN)/.dev: COMPILED = --compile-bytecode
$(BIN)/.%: requirements/%.txt pyproject.toml | $(BIN)/uv
	uv pip install $(COMPILED) --python $(BIN)/python --require-hashes -r $<
	uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	touch $@

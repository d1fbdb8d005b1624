# `make demo` for everybody, `make check` while working, `make test` before a change goes in; each sets up
# what it needs, in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Each worker takes whole files, for the tests of a file share what is costly to make; the longest come first, in
# the order of tests/support/order.py. Three workers, for two cores: much of the time tests wait.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup native toolchains litert agents demo check test slow soak test-one unit lint style types format bench clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/ -/'

setup: $(READY) ## the virtual environment, with all pinned packages

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python found; install python3.11 and python3.11-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "make: $(PYTHON) is too old or too new; set PYTHON to a Python 3.11 to 3.13"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

native: $(READY) ## native calls of ExecuTorch for the Python agent on this machine (build/native; needs g++)
	@tools/build_native.sh

toolchains: $(READY) ## Kotlin, Swift and what the tests of phones need, as far as it can be had (.toolchains)
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/toolchains/all.sh

litert: $(READY) ## the converter to LiteRT, for `bench measure --runtime litert` (.toolchains/litert)
	@tools/toolchains/litert.sh

agents: toolchains ## the Kotlin and Swift agents for this machine (build)
	@for part in kotlin swift; do tools/build_$$part.sh || exit 1; done

demo: $(READY) ## profile, train, search, measure, report: autovit-nano on this machine
	@tools/build_native.sh --if-possible
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tools/demo.sh

check: $(READY) ## lint, types and unit tests side by side, without toolchains
	@$(MAKE) --no-print-directory --jobs 3 style types unit

test: lint toolchains ## lint, types and all tests but the slow ones
	@tools/build_native.sh --if-possible
	$(PYTEST)

soak: toolchains ## faults by the thousand for MINUTES=30, resumable: what is lost, doubled or wrong
	@tools/build_native.sh --if-possible
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30)

slow: toolchains ## the slow tests, which `make test` leaves out: before a release, or after changing what they test
	@tools/build_native.sh --if-possible
	$(PYTEST) -m slow

test-one: $(READY) ## a file of tests, a folder, or those whose names match: T=tests/unit/luts, T="resumed or killed"
	@test -n "$(T)" || { echo 'make: say which, such as T=tests/unit/luts or T=resumed'; exit 2; }
	$(BIN)/python -m pytest $(if $(wildcard $(firstword $(subst ::, ,$(T)))),'$(T)',-k '$(T)')

unit: $(READY)
	$(PYTEST) --quiet tests/unit

lint: style types ## ruff and mypy

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY) ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure what docs/benchmarks.md states
	$(BIN)/python -m tools.benchmarks

clean: ## remove the environment and everything that was generated
	rm -rf $(VENV) .toolchains build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis runs

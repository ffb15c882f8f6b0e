# Every target sets up what it needs, once. `make help` lists them.

PYTHON ?= python3
TORCH_SPEC ?= torch
VENV ?= .venv
BIN := $(VENV)/bin
TOOLS_STAMP := $(VENV)/.tools
BASE_STAMP := $(VENV)/.base
DEV_STAMP := $(VENV)/.dev
BUILD_STAMP := $(VENV)/.build
WHEEL_STAMP := dist/.wheel
# With what the library is linked: the same for the installed one and the wheel, so that it is
# compiled once.
LINKER := $(VENV)/.linker
SOURCES := Cargo.toml Cargo.lock $(shell find rust -name '*.rs')
PACKAGE := $(shell find -L python -name '*.py' -o -name '*.pyi') README.md LICENSE
INSTALL := $(BIN)/python -m pip install --quiet
ARGS ?=
# Tests in a process for each core; `make test ARGS="-n 0"` runs them in one.
SIDE_BY_SIDE := -n auto --dist worksteal
# How much `make fuzz` tries: cases of each property, calls of each function, files in all.
FUZZ_CASES ?= 1000000
FUZZ_CALLS ?= 20000
FUZZ_FILES ?= 100000
FUZZ_SEED ?= 0
PROPERTIES := $(patsubst tests/%.rs,%,$(shell grep -l 'proptest!' tests/*.rs))
# Dependencies come over the network while the library is compiled: two things at a time.
SET_UP := +@$(MAKE) --no-print-directory --jobs=2 SETTING_UP=1

export MATURIN_NO_INSTALL_RUST := 1
# Our build backend calls maturin by its name.
export PATH := $(abspath $(BIN)):$(PATH)

# Two targets side by side would set up the same environment.
ifndef SETTING_UP
.NOTPARALLEL:
endif

.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-gpu lint check docs dev fmt fuzz wheel wheels examples clean \
	user-environment developer-environment core-tests

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo:  ## Measure the papers' claims here: a table and report/index.html
	$(SET_UP) user-environment
	$(BIN)/lmcore reproduce $(ARGS)

test:  ## Run every test
	$(SET_UP) developer-environment core-tests wheel
	LMCORE_WHEEL="$$(ls $(CURDIR)/dist/*.whl)" $(BIN)/python -m pytest -q --durations=25 --durations-min=4 $(SIDE_BY_SIDE) $(ARGS)

# What ships has neither debug assertions nor checks of overflow: the tests run without them too.
AS_SHIPPED := $(foreach check,debug-assertions overflow-checks,\
	--config profile.test.package.lmcore.$(check)=false)

# cargo takes the pool of jobs of a make above it for its own, and cannot.
core-tests: $(BUILD_STAMP)
	MAKEFLAGS= cargo test --quiet
	MAKEFLAGS= cargo test --quiet $(AS_SHIPPED)

bench:  ## Time everything against its opponents; writes benches/results/ and the speed tables
	$(SET_UP) developer-environment
	$(INSTALL) rapidfuzz numba "langextract>=1.7"
	cd benches && for bench in bench_*.py; do $(abspath $(BIN))/python $$bench $(ARGS) || exit 1; done
	$(BIN)/python benches/tables.py

bench-gpu:  ## Check and time every kernel on a CUDA device, in under ten minutes
	$(SET_UP) developer-environment
	$(BIN)/python benches/gpu.py

lint:  ## Format checks, clippy with and without Python, ruff, mypy, stubtest
	$(SET_UP) developer-environment
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --all-targets --features python -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest lmcore._core

check: lint test examples  ## Everything that must hold before a change lands

docs:  ## Build the site of the documents and docstrings, site/html; a warning is an error
	$(SET_UP) $(DEV_STAMP)
	$(BIN)/python docs/site/build.py

dev:  ## The environment, with hooks that run before a commit
	$(SET_UP) developer-environment
	$(BIN)/pre-commit install

fmt:  ## Format all code
	$(SET_UP) developer-environment
	cargo fmt
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fuzz:  ## Random cases of every property, random calls, and mutated files of every reader
	$(SET_UP) developer-environment
	MAKEFLAGS= PROPTEST_CASES=$(FUZZ_CASES) cargo test --release $(PROPERTIES:%=--test %) \
		-- --nocapture
	$(BIN)/python tests/random_calls.py --examples $(FUZZ_CALLS) --seed $(FUZZ_SEED)
	$(BIN)/python tests/mutate_files.py --examples $(FUZZ_FILES) --seed $(FUZZ_SEED)

wheel: $(WHEEL_STAMP)  ## Build the wheel into dist/

# One for Python 3.11 and later, one for 3.14 without its lock, and one for 3.15 and later, with
# and without it. maturin knows interpreters that are not here when it links by zig.
wheels:  ## Build the wheels for all interpreters into dist/
	$(SET_UP) developer-environment
	rm -rf dist
	for python in python3.11 python3.14t python3.15; do \
		$(BUILD_WHEEL) --interpreter $$python || exit 1; done
	LMCORE_WHEEL="$$(ls $(CURDIR)/dist/*.whl)" $(BIN)/python -m pytest -q tests/test_wheel.py

# -P: a system's example has the system's name, and `compression` is a module of Python 3.14, too.
examples:  ## Run the examples
	$(SET_UP) developer-environment
	for example in examples/*.py; do $(BIN)/python -P $$example > /dev/null || exit 1; done

clean:  ## Remove the environment and all that was built
	rm -rf $(VENV) .ci/work target dist report site

# Recipes that do nothing, so that make does not report each time that nothing was to be done.
user-environment: $(BASE_STAMP) $(BUILD_STAMP)
	@:

developer-environment: $(DEV_STAMP) $(BUILD_STAMP)
	@:

$(TOOLS_STAMP):
	@command -v cargo > /dev/null || { echo "lmcore needs a Rust toolchain: cargo was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lmcore needs Python 3.11 or later: set PYTHON=..." >&2; exit 1; }
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(INSTALL) "maturin>=1.14,<2"
	$(BIN)/python .ci/linker.py > $(LINKER)
	touch $@

# What a user can have, `lmcore-research[all]`: enough for `make demo`.
$(BASE_STAMP): $(TOOLS_STAMP) pyproject.toml .ci/requirements.py
	$(BIN)/python .ci/requirements.py all > $(VENV)/requirements-all.txt
	$(INSTALL) "$(TORCH_SPEC)" --requirement $(VENV)/requirements-all.txt
	touch $@

# What the tests and the lints need besides.
$(DEV_STAMP): $(BASE_STAMP)
	$(BIN)/python .ci/requirements.py dev > $(VENV)/requirements-dev.txt
	$(INSTALL) --requirement $(VENV)/requirements-dev.txt
	touch $@

# Our own package alone is built without isolation, so that cargo finds what it built before.
$(BUILD_STAMP): $(TOOLS_STAMP) $(SOURCES) pyproject.toml
	MATURIN_PEP517_ARGS="$$(cat $(LINKER))" \
		$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

BUILD_WHEEL = $(BIN)/maturin build --quiet --release --out dist $$(cat $(LINKER))

# The interpreter is named: another one that is found first may have another ABI.
$(WHEEL_STAMP): $(BUILD_STAMP) $(PACKAGE)
	rm -rf dist
	$(BUILD_WHEEL) --interpreter $(BIN)/python
	touch $@

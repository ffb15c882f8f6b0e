# Every target sets up what it needs, once. `make help` lists them.

PYTHON ?= python3
TORCH_SPEC ?= torch>=2.6,<3
VENV := .venv
BIN := $(VENV)/bin
BASE_STAMP := $(VENV)/.base
DEV_STAMP := $(VENV)/.dev
BUILD_STAMP := $(VENV)/.build
WHEEL_STAMP := dist/.wheel
SOURCES := Cargo.toml Cargo.lock $(shell find rust -name '*.rs')
PACKAGE := $(shell find -L python -name '*.py' -o -name '*.pyi') README.md LICENSE
ARGS ?=

export MATURIN_NO_INSTALL_RUST := 1

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint check dev fmt fuzz wheel examples clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(BUILD_STAMP)  ## Measure the papers' claims here: a table and report/index.html
	$(BIN)/lmcore reproduce $(ARGS)

test: $(DEV_STAMP) $(BUILD_STAMP) wheel  ## Run every test
	cargo test --quiet
	LMCORE_WHEEL=$$(ls $(CURDIR)/dist/*.whl) $(BIN)/python -m pytest -q $(ARGS)

bench: $(DEV_STAMP) $(BUILD_STAMP)  ## Time everything against its opponents; writes benches/results/
	$(BIN)/python -m pip install --quiet rapidfuzz numba
	cd benches && for bench in bench_*.py; do ../$(BIN)/python $$bench $(ARGS) || exit 1; done

lint: $(DEV_STAMP) $(BUILD_STAMP)  ## Format checks, clippy with and without Python, ruff, mypy, stubtest
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --all-targets --features python -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest lmcore._core

check: lint test examples  ## Everything that must hold before a change lands

dev: $(DEV_STAMP) $(BUILD_STAMP)  ## The environment, with hooks that run before a commit
	$(BIN)/pre-commit install

fmt: $(DEV_STAMP) $(BUILD_STAMP)  ## Format all code
	cargo fmt
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fuzz:  ## A million random cases per property of the core
	PROPTEST_CASES=1000000 cargo test --release --test lcs --test matching --test entities \
		--test words --test predictions --test ranking --test negatives \
		--test false_negatives -- --nocapture

wheel: $(WHEEL_STAMP)  ## Build the wheel into dist/

examples: $(DEV_STAMP) $(BUILD_STAMP)  ## Run the examples
	for example in examples/*.py; do $(BIN)/python $$example > /dev/null || exit 1; done

clean:  ## Remove the environment and all that was built
	rm -rf $(VENV) target dist report

# What a user has, and matplotlib: enough for `make demo`.
$(BASE_STAMP): pyproject.toml
	@command -v cargo > /dev/null || { echo "lmcore needs a Rust toolchain: cargo was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lmcore needs Python 3.11 or later: set PYTHON=..." >&2; exit 1; }
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "maturin>=1.14,<2"
	$(BIN)/python -c "import torch" 2> /dev/null || $(BIN)/python -m pip install --quiet "$(TORCH_SPEC)"
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[report]"
	touch $@ $(BUILD_STAMP)

# What the tests and the lints need besides.
$(DEV_STAMP): $(BASE_STAMP)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[dev]"
	touch $@ $(BUILD_STAMP)

$(BUILD_STAMP): $(BASE_STAMP) $(SOURCES)
	$(BIN)/maturin develop --quiet --release --skip-install
	touch $@

$(WHEEL_STAMP): $(BUILD_STAMP) $(PACKAGE)
	rm -rf dist
	$(BIN)/maturin build --quiet --release --out dist
	touch $@

# `make demo` and `make test` are the whole set-up: each makes its own environment in .venv when there is none.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; raise SystemExit(not sys.version_info >= (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
JOBS ?= 2
export OMP_NUM_THREADS ?= 1
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all proof lint clean

demo: .venv/installed
	$(BIN)/windtunnel compare llama palm diff_transformer ngpt --preset quick --out studies/demo

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n $(JOBS)

# The browser's tests need Chromium beside it (Debian: chromium) and are skipped, with the reason, where it is missing.
# lm-evaluation-harness's own model, which ours is held against, needs accelerate.
test-all: .venv/installed-dev lint
	$(PIP) -e '.[browser,cluster,lm-eval]' accelerate
	$(BIN)/python -m pytest -n $(JOBS) -m "not gpu"

# Runs what compares with something independent, and writes what it saw into docs/proof.md.
proof: .venv/installed-dev
	$(BIN)/python -m pytest -n $(JOBS) -m "not gpu" --write-proof

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/torch:
	@test -n "$(PYTHON)" || { echo "error: Windtunnel needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PIP) 'torch>=2.11,<2.14'
	@touch $@

.venv/installed: .venv/torch pyproject.toml
	$(PIP) -e .
	@touch $@

.venv/installed-dev: .venv/torch pyproject.toml
	$(PIP) -e '.[dev]'
	@touch $@ .venv/installed

clean:
	rm -rf .venv

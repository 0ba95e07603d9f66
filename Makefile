# Every target sets up what it needs; all of them work from any folder: make -C /path/to/regraft demo
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
PHOTOS ?= ../shared/datasets/trash
BENCH ?= race
# What the processor is said to compute in: auto, fp32 or bf16.
PRECISION ?= auto
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --precision $(PRECISION)

# Where it is set, every process would compile ZenML, MLflow and torch again, which takes longer than
# most tests: the first one writes the bytecode for all.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-unit test-slow mutations lint types fmt bench lock docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(READY) ## .venv from the hashed lock file

$(READY): requirements/lock.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Expected Python 3.11 to 3.13 as $(PYTHON), got $$($(PYTHON) --version 2>&1). Call: make setup PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv .venv || \
		{ echo "Python's venv module cannot make an environment here. On Debian: apt-get install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline -e .
	@touch $(READY)

demo: $(READY) ## train on 2223 photos of solar cells, about two minutes
	$(BIN)/python -m regraft.cli demo

test: $(READY) ## unit and pipeline tiers, some minutes
	$(PYTEST) -m 'not slow'

test-unit: $(READY) ## the core alone, under a minute
	$(PYTEST) -m 'not pipeline and not slow' tests/unit tests/golden $(wildcard tests/test_*.py)

test-slow: $(READY) ## many kills, a whole year, real servers, real weights; half an hour
	$(PYTEST) -m slow --timeout 3000

mutations: $(READY) ## break the code on purpose, see a test fail: NAMES="..." for some of them
	$(BIN)/python -m tests.mutations $(NAMES)

lint: $(READY) ## ruff, and every YAML in configs/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m regraft.cli config check configs/*.yaml

types: $(READY) ## mypy, strict on the core
	$(BIN)/mypy

fmt: $(READY) ## format, and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## side by side with the peers; BENCH=retrain, volume, ... for the rest (docs/performance.md)
	$(BIN)/python -m tests.bench $(BENCH) "$(PHOTOS)" $(ARGS)

lock: ## compile the lock files anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev \
		--no-header --no-emit-index-url --no-annotate pyproject.toml -o requirements/lock.txt
	echo uv | $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--no-header --no-emit-index-url --no-annotate - -o requirements/uv.txt

docs: $(READY) ## the API reference as HTML, in build/docs
	$(BIN)/python -m pdoc --output-directory build/docs regraft.api regraft.core.config

clean: ## remove the environment and the caches, not the state folder
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info

# `make demo` and `make test` are the two commands of the README; everything installs into .venv from constraints.txt.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On a terminal pip shows its progress; in a log it would be hundreds of lines.
PIP_INSTALL := [ -t 1 ] && quiet= || quiet=-qq; $(BIN)/pip install $$quiet $(PIP_FLAGS) --disable-pip-version-check --constraint constraints.txt
# Three workers on two cores: the tests of servers mostly wait, and the others fill their waits (tests/conftest.py).
PYTEST = $(BIN)/python -m pytest -n 3 $(TESTS)
export PAIRFLOW_HOME ?= $(CURDIR)/.pairflow
# Else each of the tests' hundreds of processes would compile all of our modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-fast test-containers test-hosts check docs format clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# A stamp a set of packages: a second `make` installs nothing, a changed pin does.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PairFlow needs Python 3.11 or newer, got " + sys.version.split()[0] + "; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV) (2 to 4 minutes the first time)"
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

demo: $(VENV)/.installed  ## Pair, train and compare both models on real digits, in under 12 minutes on 2 cores.
	$(BIN)/pairflow pipeline --dataset digits --preset demo

check: $(VENV)/.installed-dev  ## Lint, formatting, types, and who may import whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.installed-dev  ## All tests; PAIRFLOW_DATA_DIR=DIR adds those on the large data sets.
	$(PYTEST)

docs: $(VENV)/.installed-docs  ## The documentation as a site, in site/; a broken link fails.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test-fast: $(VENV)/.installed-dev  ## The tests that need no server, but for the slowest.
	$(PYTEST) -m 'not service and not slow'

# Not among all tests: it builds the image, wants root or an engine that answers, and takes minutes.
test-containers: $(VENV)/.installed-dev  ## deploy/Dockerfile built, compose up, servers killed; docs/operations.md says more.
	$(BIN)/python -m pytest --capture=no tests/containers

test-hosts: $(VENV)/.installed-dev  ## Two machines without a disk in common, one of them cut off; as root, with iproute2.
	$(BIN)/python -m pytest tests/hosts

format: $(VENV)/.installed-dev  ## Rewrite the code in the house's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and everything that the demo wrote.
	rm -rf $(VENV) .pairflow site

# Two commands: `make quickstart` and `make test`. Each first makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LIGHT := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
INSTALL = $(BIN)/python -m pip install --constraint .ci/constraints.txt --editable

quickstart: $(LIGHT)  ## corpus to chat model on this machine
	$(BIN)/scratch run recipes/quickstart

check: lint  ## the linter and the tests that need no whole command, about five minutes
	$(BIN)/python -m pytest --numprocesses auto -m "not slow and not release"

test: lint  ## the linter and the tests that every change must pass, about 25 minutes on two cores
	$(BIN)/python -m pytest --numprocesses auto

test-release: lint  ## the linter and all tests, also those that a release must pass
	$(BIN)/python -m pytest --numprocesses auto -m "release or not release"

lint: $(DEV)
	$(BIN)/ruff check .

install: $(DEV)  ## only the environment, with all that the tests need

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(LIGHT): pyproject.toml .ci/constraints.txt | $(BIN)/python
	$(INSTALL) ".[train,eval]"
	touch $@

$(DEV): pyproject.toml .ci/constraints.txt | $(BIN)/python
	$(INSTALL) ".[dev]"
	touch $(LIGHT) $@

.PHONY: quickstart check test test-release lint install

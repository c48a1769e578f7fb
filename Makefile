# Every target sets up what it needs; each can be the first.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
READY := $(VENV)/.ready
# Some images set it; each of the many starts of the program would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test torture soak check bench

demo: $(READY)
	$(BIN)/dumbwaiter demo

test: $(READY)
	$(BIN)/python -m pytest -n 4 --dist worksteal

torture: $(READY)
	$(BIN)/python -m pytest -m torture --timeout 900

SECONDS ?= 600
soak: $(READY)
	$(BIN)/python tests/soak.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m tests.bench $(ARGS)

$(READY): pyproject.toml tools/system-packages
	PYTHON=$(PYTHON) tools/system-packages
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing dumbwaiter and what its tests need into $(VENV)"
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

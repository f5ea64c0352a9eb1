# The two commands are `make demo` and `make test`. Both need Python 3.11 or newer, make and pip.
PYTHON ?= python3
SEEDS ?= 0
SPLIT_SEED ?= 1234

VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-scenes test docs format clean

demo: $(VENV)/.installed-demo
	$(BIN)/kgclip demo world --seeds $(SEEDS) --split-seed $(SPLIT_SEED) -o runs/demo
	$(BIN)/kgclip demo scenes --quick --split-seed $(SPLIT_SEED) -o runs/scenes-quick

demo-scenes: $(VENV)/.installed-demo
	$(BIN)/kgclip demo scenes --seeds $(SEEDS) --split-seed $(SPLIT_SEED) -o runs/scenes

test: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy kgclip
	$(BIN)/python -m pytest --check-skips

docs: $(VENV)/.installed-dev
	$(BIN)/python -m mkdocs build --strict

format: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf build dist runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("kgclip needs Python 3.11 or newer; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# A stamp, so that nothing is installed again until pyproject.toml changes.
$(VENV)/.installed-demo: EXTRAS := demo
$(VENV)/.installed-dev: EXTRAS := demo,dev
$(VENV)/.installed-demo $(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[$(EXTRAS)]"
	touch $@

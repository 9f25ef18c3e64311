# Makes its own virtual environment from any Python >= 3.11 (PYTHON=... chooses one) with the
# versions of constraints.txt. `make demo` and `make test` are all that a newcomer needs.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
RUN := $(BIN)/python -m
DEMO := runs/demo
GAMMAS := 1,1.2,1.5,2,3,4

.PHONY: help setup demo test lint bench clean

help:
	@echo "make demo   train a small captioner and a small encoder, show the guidance trade-off"
	@echo "make test   run the tests"
	@echo "make lint   check style;  make bench  run the benchmarks;  make clean  remove what was made"

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "capjax needs Python 3.11 or newer: install one, or name it with PYTHON=..."; exit 2; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(RUN) capjax.train --config configs/contrastive/scenes.py --workdir $(DEMO)/encoder
	$(RUN) capjax.train --config configs/guiding/scenes.py --workdir $(DEMO)/captioner
	$(RUN) capjax.evaluate --checkpoint $(DEMO)/captioner --encoder $(DEMO)/encoder \
		--guidance $(GAMMAS) --out $(DEMO)

test: setup
	$(RUN) pytest -n auto --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(RUN) benchmarks.scenes

clean:
	rm -rf .venv .cache runs build *.egg-info

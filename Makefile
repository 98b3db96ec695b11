# The whole interface: `make help`. Everything runs in .venv, which the first target that needs it makes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Which faiss: `cpu` or `gpu`. Exactly one belongs in an environment.
FAISS ?= cpu

.DEFAULT_GOAL := help
.PHONY: help install install-test demo check test test-slow docs bench bench-peers lowest fix clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(FAISS)]'
	@touch $@

$(VENV)/installed-demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(FAISS),generate]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(FAISS),test]'
	@touch $@ $(VENV)/installed $(VENV)/installed-demo

install: $(VENV)/installed  ## install the engine and its command into .venv

install-test: $(VENV)/installed-test  ## install what the checks and tests need, too

demo: $(VENV)/installed-demo  ## index the bundled corpus, run composed queries, write demo/report.html
	$(BIN)/underdrawing demo --out demo

check: install-test  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/*.py
	$(BIN)/lint-imports

test: install-test  ## the tests, without slow ones and those that need a GPU; at most four files in parallel
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: install-test  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

docs: install-test  ## the site, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: install-test  ## speed of search and indexing, compared with raw FAISS and the raw encoder; half an hour
	$(BIN)/python -m benchmarks.speed_search --json benchmarks/results/speed/search.json --plot docs/speed.png
	$(BIN)/python -m benchmarks.speed_index --json benchmarks/results/speed/index.json

bench-peers: $(BIN)/python  ## search speed compared with LanceDB, Chroma, milvus-lite, usearch and FAISS, in a separate environment
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear $(VENV)-peers
	$(BIN)/uv pip install --quiet --python $(VENV)-peers --editable '.[$(FAISS),peers]'
	$(VENV)-peers/bin/python -m benchmarks.speed_search --part peers --rows 50000 --dim 128 --turns 20 --json benchmarks/results/speed/search.json

lowest: $(BIN)/python  ## the tests on the oldest releases that pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --seed --clear $(VENV)-lowest
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(VENV)-lowest --resolution lowest-direct --editable '.[$(FAISS),test]'
	$(VENV)-lowest/bin/python -m pytest

fix: install-test  ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the targets created
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-peers demo site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Two promises: `make demo` and `make test` work from a clean clone. The rest is for developers.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= out/demo
PYTEST := $(BIN)/python -m pytest -n 2

.PHONY: setup demo test test-slow test-floor test-newest test-peers constraints lint format bench docs clean

.venv/.ready: pyproject.toml constraints.txt
	@echo "Setting up .venv, once: some minutes and 2.6 GB. pip is silent meanwhile."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,cluster,riemannian,trainers,text,trackers,bench,docs,dev]'
	touch $@

setup: .venv/.ready  ## create .venv with fenland, the lab and the tools

demo: setup  ## train SGD, SAM and SSAM on real data and write a report
	$(BIN)/fenland compare --data digits --optimizers sgd sam ssam --out $(OUT)

lint: setup  ## ruff (lint and format) and mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPY_NUM_WORKERS=2 $(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint  ## lint, types and every test that is not marked slow
	$(PYTEST) -m "not slow"

test-slow: setup  ## the other tests; wrong optimizers must die here, too
	$(PYTEST) -m "slow or both_tiers"

# The core under another torch, in .venv-oldest or .venv-newest; REMOVE=1 removes it afterwards, PYTHON=... makes it.
test-floor:  ## the oldest torch that fenland allows
	$(PYTHON) tools/second_torch.py oldest $(if $(REMOVE),--remove)

test-newest:  ## the newest torch that pip offers
	$(PYTHON) tools/second_torch.py newest $(if $(REMOVE),--remove)

constraints:  ## the newest set that installs together, to be tested before it is committed
	$(PYTHON) tools/constraints.py --write

test-peers: setup  ## other people's optimizers as bases: equal to themselves, or refused by name
	$(BIN)/python tests/peers/outside.py

bench: setup  ## time the step against the floor, the plain base, the textbook code and pip's
	$(BIN)/python benchmarks/step.py

docs: setup  ## build the documentation site in out/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir out/docs

clean:
	rm -rf .venv .venv-oldest .venv-newest out

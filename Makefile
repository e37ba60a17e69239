# The verbs of this project. `make run` and `make test` set up what they need; nothing has to be done before.
# More arguments: make run ARGS="--engine local", make test ARGS="-k store".
SHELL := /bin/bash
BIN := .venv/bin
INPUT ?= data/
OUTPUT ?= output/
ARGS ?=
export PYTHON TORCH

.DEFAULT_GOAL := help
.PHONY: help setup run test torture lint format types derived docs links audit container check bench constraints wheel clean

help: ## List the verbs.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r verb does; do \
	    printf '  make %-12s %s\n' "$$verb" "$$does"; done

setup: ## Make .venv with everything that the verbs need (PYTHON=..., TORCH=... to choose).
	@scripts/setup.sh

run: setup ## Render the raws in data/ into output/ (INPUT=..., OUTPUT=...).
	$(BIN)/nightisp flow run --input $(INPUT) --output $(OUTPUT) $(ARGS)

# Two at once, a file to each: most of them wait for processes that they started.
test: setup ## Run the tests.
	$(BIN)/pytest --numprocesses=2 --dist=loadfile $(ARGS)

torture: setup ## Kill, starve and mislead it for long: every script in tests/torture.
	@set -e; for file in tests/torture/[a-z]*.py; do \
	    echo "== $$file"; $(BIN)/python -m tests.torture.$$(basename $$file .py) $(ARGS); done

lint: setup ## Check style, imports between modules, shell scripts, the Dockerfile.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	@if command -v shellcheck >/dev/null; then \
	    echo shellcheck && shellcheck run.sh .ci/run scripts/*.sh; \
	else echo "shellcheck is not installed (apt-get install shellcheck): shell scripts were not checked"; fi

format: setup ## Lay out the code, and mend what ruff can mend.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: setup ## Check types.
	$(BIN)/mypy

derived: setup ## Check that dvc.yaml and docs/stages.md follow from the stage table.
	$(BIN)/python -m nightisp.derived --check

docs: setup ## Build the documentation into docs/_build/html; its notebooks are run.
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --group docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

links: docs ## Check the links of the documentation that lead out of it (needs a network).
	$(BIN)/sphinx-build --quiet -D nb_execution_mode=off -b linkcheck docs docs/_build/links

audit: setup ## Ask PyPI for known vulnerabilities of what is pinned (needs a network).
	scripts/audit.sh

container: setup ## Do what the container does, in an empty environment, without a container.
	scripts/container.sh

check: lint types derived docs container test ## Everything but the benchmarks.

bench: setup ## Measure time and memory of each stage.
	$(BIN)/python benchmarks/run.py $(ARGS)

constraints: ## Write constraints.txt anew, with the newest versions (PYTHON=python3.11).
	scripts/constraints.sh

wheel: setup ## Build the wheel into dist/.
	rm -rf build
	$(BIN)/pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

clean: ## Remove what can be made again; artifacts/ and output/ stay.
	rm -rf .venv build dist docs/_build docs/_generated *.egg-info .ruff_cache .mypy_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: help demo test lint docs clean
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-run  ## install Raylift and run its main job, into demo-output/
	$(BIN)/raylift demo -o demo-output

test: $(VENV)/.installed-dev  ## run the tests
	$(BIN)/pytest

lint: $(VENV)/.installed-dev  ## check rules, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## render the documentation, into site/
	$(BIN)/sphinx-build --fail-on-warning --quiet docs site

clean:  ## remove everything that make made
	rm -rf $(VENV) demo-output site build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@echo "creating $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Raylift needs Python 3.11 or newer")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing raylift (a few minutes the first time) ..."
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing raylift and what its tests need (a few minutes the first time) ..."
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing raylift and what its documentation needs (a few minutes the first time) ..."
	@$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.installed-run

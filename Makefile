PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: help demo test lint audit docs web wheel clean
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-run  ## install Raylift and run its main job, into demo-output/
	$(BIN)/raylift demo -o demo-output

test: $(VENV)/.installed-dev  ## run the tests, and print how many of the lines they cover
	$(BIN)/pytest --cov --cov-report=
	@printf "covered: "; $(BIN)/coverage report --format=total | sed "s/$$/ % of the lines/"

lint: $(VENV)/.installed-dev  ## check rules, format, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/.installed-dev  ## ask PyPI's advisories about what constraints.txt pins (needs a network)
	$(PIP) pip-audit
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip

docs: $(VENV)/.installed-docs  ## render the documentation, into site/
	$(BIN)/python -m typer raylift.cli.registered utils docs --name raylift --output docs/commands.md >/dev/null
	$(BIN)/sphinx-build --fail-on-warning --quiet docs site

web: src/raylift/server/static/app.js  ## build the web page of raylift serve (needs Node.js 20)

src/raylift/server/static/app.js: web/app.js web/index.html web/style.css web/copy.js web/package-lock.json
	@echo "building the web page ..."
	@mkdir -p $(@D)
	@cd web && npm ci --silent --no-audit --no-fund && npm run --silent build

wheel: web | $(BIN)/python  ## build the package with the web page, into dist/
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps -w dist .

clean:  ## remove everything that make made
	rm -rf $(VENV) docs/commands.md web/node_modules src/raylift/server/static demo-output site build dist .pytest_cache .mypy_cache .ruff_cache
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

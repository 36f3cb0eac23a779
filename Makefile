# `make` lists the targets: every target has its line of help after `##`.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Tests wait for clocks and servers: three at a time keep two cores busy.
WORKERS := 3
# Where there is enough memory their files are kept in it, so that none waits for the disk.
FILES := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR > 1 && $$4 > 4000000 { print "TMPDIR=/dev/shm" }')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo ui browser postgres test test-all pictures lint types imports dead-code docs docs-check behaviours bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Installs again only when what is to be installed has changed.
$(INSTALLED): pyproject.toml setup.cfg constraints.txt scripts/make_venv.sh scripts/install.sh
	@PYTHON="$(PYTHON)" sh scripts/make_venv.sh $(VENV)
	@echo "Installing what constraints.txt names (a minute or two the first time)"
	@UV="$(UV)" sh scripts/install.sh $(VENV)
	@touch $@

install: $(INSTALLED) ## Make the environment, as all targets do that need it

demo: $(INSTALLED) ## Label the sample table with a simulated provider; a second run pays nothing
	@$(BIN)/python -m ondine_dagster.cli.demo

ui: $(INSTALLED) ## Open the demo in the Dagster UI
	@$(BIN)/python -m ondine_dagster.cli.demo --ui

browser: ## Install Debian's Chromium for the tests that look at Dagster's page
	@sh scripts/install_browser.sh

postgres: ## Install Debian's PostgreSQL for the tests of database sources and exports
	@sh scripts/install_postgres.sh

test: $(INSTALLED) ## Run the tests, but for the slow ones
	$(FILES) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow"

test-all: $(INSTALLED) ## Run all tests (a third longer)
	$(FILES) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

pictures: $(INSTALLED) ## Take the pictures in docs/images again
	PICTURES=docs/images $(BIN)/python -m pytest -q ondine_dagster_tests/end_to_end/test_operator.py

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## Check the types, strictly
	$(BIN)/mypy

imports: $(INSTALLED) ## Check that the rooms import in one direction
	$(BIN)/lint-imports

dead-code: $(INSTALLED) ## Look for code that nothing uses
	$(BIN)/vulture

docs: $(INSTALLED) ## Write the generated pages, then check all pages
	$(BIN)/python scripts/declaration_docs.py
	$(BIN)/python scripts/privacy_figures.py
	$(BIN)/python scripts/check_docs.py

docs-check: $(INSTALLED) ## Check the pages: links, commands, examples, generated pages up to date
	$(BIN)/python scripts/declaration_docs.py --check
	$(BIN)/python scripts/check_docs.py

behaviours: $(INSTALLED) ## List the promised behaviours with the tests that prove them
	@$(BIN)/python scripts/behaviours.py

bench: $(INSTALLED) ## Measure speed and memory (minutes)
	$(BIN)/python -m benchmarks

clean: ## Remove environment, builds and caches; never the data folder, whose ledger holds paid answers
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find ondine_dagster ondine_dagster_tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Kept: data/ (its ledger holds answers that were paid for)"

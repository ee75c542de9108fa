# Ratchet. `make run` and `make test` do all set-up themselves, in .venv, and again when the pins change.

SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
ENGINE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
STAMP := $(VENV)/.installed-$(ENGINE)
ARGS ?=

# Compiling what vLLM imports at each start takes longer than all the rest of it; setup leaves that to the first import.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test lint bench clean

help: ## this list
	@echo "make TARGET [ARGS=...]; ARGS goes to ratchet up, to pytest or to the gateway's benchmark"
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/'

run: $(STAMP) ## set up, get the model, start everything (Ctrl-C ends it)
	@.ci/model $(ARGS)
	@.ci/web || echo "the web page could not be built; the API runs without it" >&2
	@exec $(VENV)/bin/ratchet up $(ARGS)

test: lint ## set up, check, run all tests
	@.ci/web
	@exec .ci/tests $(ARGS)

lint: $(STAMP) ## set up; ruff, mypy, import contracts, the page's types
	@echo "ruff: lint and format"
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --check --quiet .
	@echo "mypy"
	@$(VENV)/bin/mypy --no-error-summary
	@echo "import contracts"
	@.ci/quiet $(VENV)/bin/lint-imports --no-cache
	@echo "the page's types"
	@.ci/web check

bench: $(STAMP) ## set up, run the benchmarks in tests/bench that need nothing running
	@$(PYTHON) -m pytest tests/bench --override-ini "python_files=bench_*.py" --capture=no --timeout=0
	@exec $(PYTHON) tests/bench/gateway.py $(ARGS)

clean: ## remove .venv and caches, never the data in .ratchet
	@rm -rf $(VENV) build dist ratchet.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@rm -rf serving/web/node_modules serving/web/.node serving/web/.dist serving/web/.sources serving/web/dist
	@find serving feedback training tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "removed $(VENV) and the caches; .ratchet (conversations, feedback, policies) is kept"

$(STAMP): pyproject.toml .ci/lock-$(ENGINE).txt .ci/setup
	@.ci/setup $(ENGINE)
	@touch $@

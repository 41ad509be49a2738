# Every command of this repository. Each makes what it needs first; a second time is quick.
#
#   PYTHON=python3.12   the Python to build on, instead of the first usable one that is found
#   VENV=build/other    the virtual environment, instead of .venv
#   ARGS='-k name -x'   for `make test`: arguments for pytest; then without coverage
#   RUN=dir             for `make run`: the instance directory, instead of run

VENV ?= .venv
RUN ?= run
export PYTHON RUN

.PHONY: help run test check wheels bench soak hour histories clean

help: ## show this list
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' Makefile

run: ## start a system in ./run and watch it work; Ctrl-C stops it
	@scripts/venv $(VENV)
	@scripts/run $(VENV)

test: ## the whole suite with its coverage floor, all but the long soak
	@scripts/venv $(VENV) dev
	@scripts/test $(VENV) $(ARGS)

check: ## style, types, import contracts
	@scripts/venv $(VENV) dev
	@scripts/check $(VENV)

wheels: ## build every distribution, install it outside the tree, run the README's tour there
	@scripts/venv $(VENV) dev
	@$(VENV)/bin/python scripts/check_wheels.py

bench: ## the figures of the documentation, beside the raw limits of this machine
	@scripts/venv $(VENV) dev
	@$(VENV)/bin/python benchmarks/run.py $(ARGS)

soak: ## a thousand kill -9 under load, then account for every message
	@scripts/venv $(VENV) dev
	@$(VENV)/bin/python tests/soak/soak.py $(ARGS)

hour: ## an hour of work with webhooks and cleaner, then account for every message
	@scripts/venv $(VENV) dev
	@$(VENV)/bin/python -m tests.soak.hour $(ARGS)

histories: ## a thousand transfers between machines while everything goes wrong; needs root
	@scripts/venv $(VENV) dev
	@$(VENV)/bin/python -m tests.lab.histories $(ARGS)

clean: ## remove the virtual environment and everything built; run/ stays
	rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .import_linter_cache
	rm -rf .mypy_cache plugins/*/.mypy_cache .pytest_cache .ruff_cache

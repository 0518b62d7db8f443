# Two commands matter: `make lab` opens the first notebook, `make test` runs every check there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 8888
PROJECT_FILES := pyproject.toml settings.ini setup.py
JS_FILES := $(wildcard js/*.json js/*.mjs) $(shell find js/src -type f)

export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help lab test js js-watch export docs bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

lab: $(VENV)/.lab $(VENV)/.js  ## open JupyterLab on the first notebook (PORT=8888)
	@$(BIN)/python -m nenya_nb lab --port $(PORT)

test: $(VENV)/.dev $(VENV)/.js  ## every check: notebooks, package, front end, browser (BROWSER=skip leaves the browser out)
	@tools/test.sh

js: $(VENV)/.dev  ## build the front end into nenya_nb/static
	$(BIN)/python js/build_backend.py
	@touch $(VENV)/.js

js-watch: $(VENV)/.dev  ## rebuild the front end whenever a source changes
	$(BIN)/python js/build_backend.py --watch

export: $(VENV)/.dev  ## write nenya_nb/ and README.md from the notebooks
	nbdev-export && nbdev-clean && $(BIN)/python tools/readme.py

docs: $(VENV)/.dev $(VENV)/.js  ## build the documentation site into _docs/ (needs Quarto)
	@command -v quarto >/dev/null || { echo "make docs needs Quarto: run '$(BIN)/pip install quarto-cli' or see https://quarto.org/docs/get-started"; exit 1; }
	nbdev-docs

bench: $(VENV)/.dev $(VENV)/.js  ## ratios against peers and limits, into benchmarks/results/
	$(BIN)/python benchmarks/run.py

clean:  ## remove what the other targets made (the environment too)
	rm -rf $(VENV) build dist *.egg-info _proc _docs nenya_nb/static js/node_modules .pytest_cache .ruff_cache

# The environment, in two sizes. A stamp is remade when the requirement lists change.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nenya_nb needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lab: $(PROJECT_FILES) | $(BIN)/python
	@echo "Installing torch, JupyterLab and nenya_nb into $(VENV), once:"
	$(BIN)/python -m pip install --editable '.[lab]'
	$(BIN)/python tools/check_torch.py
	@$(BIN)/jupyter labextension disable --level=sys_prefix "@jupyterlab/apputils-extension:announcements" 2>/dev/null
	@touch $@

$(VENV)/.dev: $(PROJECT_FILES) | $(BIN)/python
	@echo "Installing torch, JupyterLab, nenya_nb and the tools of its tests into $(VENV), once:"
	$(BIN)/python -m pip install --editable '.[lab,dev]'
	$(BIN)/python tools/check_torch.py
	@touch $@

# The install has built the bundles; after that they follow their sources. A machine without node lets pip fetch one.
$(VENV)/.js: $(JS_FILES)
	@$(BIN)/python js/build_backend.py --if-stale || $(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# `make grid` and `make test` install what they need; CONTRIBUTING.md describes the other targets.

VENV ?= .venv
PRESET ?= quick
OVERRIDES ?=
# The first of these that is at least 3.11. To use an environment of your own: make VENV=/path/to/it
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
BIN = $(VENV)/bin
STAMPS = $(VENV)/.stamps
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup grid test soak check format docs report doctor clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMPS)/chromium  ## Virtual environment, PyTorch, the project and a Chromium

grid: setup  ## Run a grid (PRESET=quick, OVERRIDES="train.steps=4") and write its report
	$(BIN)/dllm-rl grid $(PRESET) $(OVERRIDES)

test: setup  ## All tests, those with a real browser included, on all cores (at most 4)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

soak: setup  ## Long tests: tens of thousands of rollouts, faults, hostile plans, broken training (hours)
	$(BIN)/python -m pytest -m soak -o addopts="-q --strict-markers -s" tests

check: setup  ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup  ## Format the sources and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMPS)/docs  ## Documentation as a site in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

report: setup  ## Write the report of whatever is finished
	$(BIN)/dllm-rl report $(PRESET)

doctor: setup  ## Check this machine
	$(BIN)/dllm-rl doctor

clean:  ## Remove .venv and caches; runs/ and an environment of your own (VENV) stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# A stamp is written last, so an interrupted step is repeated.
$(STAMPS)/venv:
	@test -n "$(PYTHON)" || { echo "dllm_rl needs Python 3.11 or newer, and none was found. Run: make PYTHON=/path/to/it" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(STAMPS)/venv scripts/install_torch.py
	$(BIN)/python scripts/install_torch.py
	@touch $@

# A version that is asked for is installed whatever is there.
ifdef TORCH
.PHONY: $(STAMPS)/torch
endif

$(STAMPS)/project: $(STAMPS)/torch pyproject.toml
	$(BIN)/python -m pip install --editable ".[dev]"
	@touch $@

$(STAMPS)/docs: $(STAMPS)/project
	$(BIN)/python -m pip install --editable ".[docs]"
	@touch $@

$(STAMPS)/chromium: $(STAMPS)/project scripts/install_chromium.py
	$(BIN)/python scripts/install_chromium.py
	@touch $@

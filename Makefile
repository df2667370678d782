# Everything lives in .venv, which the first target that needs it makes. Nothing current is installed again.

VENV     := .venv
LOWEST   := .venv-lowest
BIN      := $(VENV)/bin
DEMO_OUT ?= runs/demo
WORKERS  ?= 2
PYTHON   ?= # an interpreter of your own choice; empty: the first of python3, python3.13, .12, .11 that serves

CPU_WHEELS := https://download.pytorch.org/whl/cpu

.PHONY: help install install-dev demo test test-slow test-lowest mutate check lint lint-format lint-rules lint-types lint-floors format clean

help:
	@echo "make install    the core, in $(VENV)"
	@echo "make demo       train on coloured shapes and report, on a CPU, into $(DEMO_OUT)"
	@echo "make test       the fast tests     make test-slow  the long ones"
	@echo "make test-lowest  the fast tests with the lowest version of every dependency, in $(LOWEST)"
	@echo "make mutate     plant faults and see the tests catch them"
	@echo "make check      format, lint, types, import floors, tests: what CI runs"
	@echo "make format     let ruff rewrite    make clean      remove $(VENV) and caches"

install: $(VENV)/.core
	@echo
	@echo "motet is installed in $(VENV). Next:"
	@echo "    make demo                       train a small model on this machine, and see what it gained"
	@echo "    source $(BIN)/activate       then: motet --help, motet doctor, motet train RECIPE.yaml --output FOLDER"
install-dev: $(VENV)/.dev

demo: $(VENV)/.core
	@if [ -e "$(DEMO_OUT)" ]; then n=1; while [ -e "$(DEMO_OUT).$$n" ]; do n=$$((n + 1)); done; \
	    mv "$(DEMO_OUT)" "$(DEMO_OUT).$$n" && echo "Kept the earlier demo as $(DEMO_OUT).$$n"; fi
	$(BIN)/motet train recipes/shapes_duet.yaml --output $(DEMO_OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) -m "slow and not gpu"

# The newest versions that pyproject.toml allows are in $(VENV), the lowest in $(LOWEST).
test-lowest: $(LOWEST)/.dev
	$(LOWEST)/bin/python -m pytest -n $(WORKERS)

mutate: $(VENV)/.dev
	$(BIN)/python scripts/mutate.py --jobs $(WORKERS)

# Four independent pieces: `make --keep-going lint` shows what each of them says.
lint: lint-format lint-rules lint-types lint-floors
lint-format: $(VENV)/.dev
	$(BIN)/ruff format --check .
lint-rules: $(VENV)/.dev
	$(BIN)/ruff check .
lint-types: $(VENV)/.dev
	$(BIN)/pyright
lint-floors: $(VENV)/.dev
	$(BIN)/lint-imports

check: lint test

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An old .venv without a stamp is brought up to date, not rebuilt.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	        echo "Making $(VENV) with $$($$python --version), $$python"; exec $$python -m venv $(VENV); fi; done; \
	echo "motet needs Python 3.11, 3.12 or 3.13, with venv. Fix: install one (apt install python3.12-venv, brew install" \
	     "python@3.12, uv python install 3.12) or name it: make install PYTHON=/path/to/python3." >&2; exit 1

# On Linux without an NVIDIA GPU the CPU build of torch is enough, and several GB smaller: PyTorch's own index offers it.
# Where that host cannot be reached, pip takes what its own configuration finds.
define CHOOSE_CPU_BUILD
cpu=""; if [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L 2>/dev/null | grep -q GPU; then \
    if $(BIN)/python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=10)' $(CPU_WHEELS)/torch/ 2>/dev/null; \
    then cpu=yes; else echo "$(CPU_WHEELS) cannot be reached: the package index's own build of torch"; fi; fi
endef

$(VENV)/.core: pyproject.toml | $(BIN)/python
	@$(CHOOSE_CPU_BUILD); \
	set -x; $(BIN)/python -m pip install $${cpu:+--extra-index-url $(CPU_WHEELS)} --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --editable ".[dev]"
	@touch $@

$(LOWEST)/.dev: pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv --allow-existing --python $(BIN)/python $(LOWEST)
	@$(CHOOSE_CPU_BUILD); \
	set -x; $(BIN)/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct $${cpu:+--torch-backend cpu} \
	    --editable ".[dev]"
	@touch $@

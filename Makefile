# Everything is installed into .venv, which is created when first needed and reused while it is up to date.

VENV     := .venv
LOWEST   := .venv-lowest
BIN      := $(VENV)/bin
DEMO_OUT ?= runs/demo
WORKERS  ?= 2
PYTHON   ?= # interpreter to use; empty: the first suitable of python3, python3.13, .12, .11

CPU_WHEELS := https://download.pytorch.org/whl/cpu

.PHONY: docs help install install-dev demo test test-slow test-lowest mutate check lint lint-format lint-rules lint-types lint-imports format clean

help:
	@echo "make install      install motet into $(VENV)"
	@echo "make demo         train on coloured shapes on a CPU and report the results in $(DEMO_OUT)"
	@echo "make test         run the fast tests"
	@echo "make test-slow    run the slow tests"
	@echo "make test-lowest  run the fast tests with the lowest supported version of every dependency, in $(LOWEST)"
	@echo "make mutate       mutation testing: plant faults and check that the tests catch them"
	@echo "make docs         build the documentation site in build/site"
	@echo "make check        check formatting, lint rules, types and import layers, and run the fast tests"
	@echo "make format       format the code with ruff"
	@echo "make clean        remove $(VENV) and caches"

install: $(VENV)/.core
	@echo
	@echo "motet is installed in $(VENV). Next:"
	@echo "    make demo                       train a small model and compare it before and after"
	@echo "    source $(BIN)/activate       then: motet --help, motet doctor, motet train RECIPE.yaml --output FOLDER"
install-dev: $(VENV)/.dev

demo: $(VENV)/.core
	@if [ -e "$(DEMO_OUT)" ]; then n=1; while [ -e "$(DEMO_OUT).$$n" ]; do n=$$((n + 1)); done; \
	    mv "$(DEMO_OUT)" "$(DEMO_OUT).$$n" && echo "Kept the earlier demo as $(DEMO_OUT).$$n"; fi
	$(BIN)/motet train recipes/shapes_demo.yaml --output $(DEMO_OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) -m "slow and not gpu"

# The newest versions that pyproject.toml allows are in $(VENV), the lowest in $(LOWEST).
test-lowest: $(LOWEST)/.dev
	$(LOWEST)/bin/python -m pytest -n $(WORKERS)

# The documentation site; broken links and references are errors.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in build/site: python -m http.server --bind 127.0.0.1 --directory build/site"

mutate: $(VENV)/.dev
	$(BIN)/python scripts/mutate.py --jobs $(WORKERS)

# Four independent checks: `make --keep-going lint` runs all of them even if one fails.
lint: lint-format lint-rules lint-types lint-imports
lint-format: $(VENV)/.dev
	$(BIN)/ruff format --check .
lint-rules: $(VENV)/.dev
	$(BIN)/ruff check .
lint-types: $(VENV)/.dev
	$(BIN)/pyright
lint-imports: $(VENV)/.dev
	$(BIN)/lint-imports

check: lint test

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An existing .venv is updated, not rebuilt.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	        echo "Creating $(VENV) with $$($$python --version), $$python"; exec $$python -m venv $(VENV); fi; done; \
	echo "motet needs Python 3.11, 3.12 or 3.13, with venv. Fix: install one (apt install python3.12-venv, brew install" \
	     "python@3.12, uv python install 3.12) or name it: make install PYTHON=/path/to/python3." >&2; exit 1

# On Linux without an NVIDIA GPU the CPU build of torch is enough, and several GB smaller: PyTorch's own index offers it.
# If that host cannot be reached, pip uses its configured index.
define CHOOSE_CPU_BUILD
cpu=""; if [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L 2>/dev/null | grep -q GPU; then \
    if $(BIN)/python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=10)' $(CPU_WHEELS)/torch/ 2>/dev/null; \
    then cpu=yes; else echo "$(CPU_WHEELS) cannot be reached: using torch from the package index"; fi; fi
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

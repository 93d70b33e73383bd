# ScDiVa Explorer. `make` alone lists what can be done. Works with GNU make 3.81 (macOS) and later.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKPOINT ?= default
DESCRIPTION := A small network of the published architecture, trained by this project on 38,918 public cells. It names 59 \
  cell types. Its embedding is level with PCA on each set it was measured on: see its card.
# Each stamp is newer than the requirements it was installed from, so pip runs only when they change.
READY := $(VENV)/.installed
TEST_READY := $(VENV)/.installed-tests
BENCH_READY := $(VENV)/.installed-benchmarks

.DEFAULT_GOAL := help
.PHONY: help run test train evaluate lint format bench clean chromium

# Where the training and the evaluation sets lie; neither is part of the repository (assets/README.md says why).
SCDIVA_DATA ?= ../shared/data

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

run: $(READY)  ## open the app in the browser (installs what it needs on first use)
	$(BIN)/python -m streamlit run app.py

# One thread each, for numba too, and none that spins as it waits: two processes with two threads each wait for one
# another on two cores, and take three times as long. Files keep their order, so that the slow ones (the pages, the
# browser: see tests/conftest.py) begin early, and no process is left with them when the other has nothing to do.
test: $(TEST_READY) chromium  ## run every test, the browser's included
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 OMP_WAIT_POLICY=passive \
	  $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(TEST_READY)  ## check style, docstrings, imports and formatting
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

format: $(TEST_READY)  ## mend what can be mended of it
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

train: $(READY)  ## train the default checkpoint from SCDIVA_DATA/corpus into build/checkpoint
	$(BIN)/python -m scdiva_core prepare $(SCDIVA_DATA)/corpus/*.h5ad --studies assets/corpus -o build/corpus
	$(BIN)/python -m scdiva_core pretrain build/corpus -o build/checkpoint --precision bf16 --provisional \
	  --name "ScDiVa default" --description "$(DESCRIPTION)"

evaluate: $(READY)  ## compare CHECKPOINT (default) with its baselines on SCDIVA_DATA/eval
	$(BIN)/python -m scdiva_core prepare $(SCDIVA_DATA)/corpus/*.h5ad --studies assets/corpus -o build/corpus
	$(BIN)/python -m scdiva_core evaluate embedding --checkpoint $(CHECKPOINT) \
	  --data $(SCDIVA_DATA)/eval --corpus build/corpus -o build/evaluation

bench: $(BENCH_READY)  ## measure speed and quality beside reference runs
	$(BIN)/python -m benchmarks

clean:  ## remove the virtual environment and every cache; your data and results stay
	rm -rf $(VENV) build .bench .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# bin/pip, not bin/python: Debian without python3-venv leaves a python behind but no pip.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ScDiVa Explorer needs Python 3.11 or newer; '$(PYTHON)' is not." >&2; \
	  echo "Name one, for example: make run PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Not compiled: that takes longer than all the rest, and Python compiles what it uses when it first does.
$(READY): requirements.txt | $(BIN)/pip
	@echo "Installing what requirements.txt names into $(VENV); the first time takes some minutes."
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.txt
	@touch $@

$(TEST_READY): tests/requirements.txt $(READY)
	$(BIN)/python -m pip install --quiet --no-compile --requirement tests/requirements.txt
	@touch $@

$(BENCH_READY): benchmarks/requirements.txt $(READY)
	$(BIN)/python -m pip install --quiet --no-compile --requirement benchmarks/requirements.txt
	@touch $@

# The browser tests skip without a browser; CI counts that as a failure (.ci/run).
chromium:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  if command -v $$name >/dev/null 2>&1; then exit 0; fi; \
	done; \
	if [ -d "/Applications/Google Chrome.app" ] || [ -d "/Applications/Chromium.app" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null 2>&1; then \
	  echo "No Chromium found: install Chrome or Chromium to run the browser tests." >&2; exit 0; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; \
	elif sudo -n true 2>/dev/null; then as_root="sudo"; \
	else echo "No Chromium found: run 'sudo apt-get install chromium' to run the browser tests." >&2; exit 0; \
	fi; \
	$$as_root apt-get update -qq && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	  chromium fonts-liberation || \
	  echo "Chromium could not be installed: the browser tests will be skipped." >&2

# Each target does its own set-up on a bare machine with Python 3.11 to 3.13.
PYTHON ?= $(shell for v in 3.11 3.12 3.13; do command -v python$$v >/dev/null 2>&1 && python$$v -c pass 2>/dev/null && { echo python$$v; break; }; done || true)
ifeq ($(PYTHON),)
PYTHON := python3
endif
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
# Test files run side by side; 0 is one after another, in this process.
TEST_WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

.PHONY: demo test test-fast check install web-runtime clean

demo: install web-runtime
	$(BIN)/phial demo --out $(OUT)

test: install web-runtime
	$(PYTEST)

test-fast: install web-runtime
	$(PYTEST) -m "not slow"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed; $(PYTHON) is %d.%d (set PYTHON=...)" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e . --group dev
	@touch $@

# The chat page's runtime (onnxruntime-web and a tokenizer library), kept in the user's cache, versions and SHA-512 pinned.
web-runtime: install
	$(BIN)/phial serve --fetch-runtime

clean:
	rm -rf $(VENV) runs build *.egg-info

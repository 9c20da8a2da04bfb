# `make demo` and `make test` are complete on a fresh Debian/Ubuntu machine (Python >= 3.11, git, make).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FARM := $(BIN)/python -m infra.virtual_farm

# Everything here starts `assay` many times: each would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check bench validity bundles farm farm-down farm-purge farm-packages install install-dev lock schema clean help

help:
	@echo "demo       install, run matrices/quickstart.yaml, end with a verdict and a report"
	@echo "test       install everything (Debian packages too), start the boards, run all checks"
	@echo "check      ruff, mypy and pytest on what is installed and up"
	@echo "bench      side-by-side measurements, printed"
	@echo "validity   planted defects and nulls: what the audit finds, and whether it names it right"
	@echo "farm       bring virtual boards, phone and stand-ins up;  farm-down  ends them (caches and keys stay)"
	@echo "farm-purge farm-down, and what it leaves in ~/.cache/assay/farm: systems, QEMUs, keys"
	@echo "bundles    build the hermetic bundles for Android and boards without a usable Python"
	@echo "lock       rewrite infra/locks from this environment"
	@echo "schema     rewrite matrices/schema"

install: $(VENV)/.installed .venv-tflite/.tried
install-dev: install $(VENV)/.installed-dev

$(VENV)/.installed: infra/locks/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r infra/locks/requirements.txt 'setuptools>=77'
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: infra/locks/dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install -q -r infra/locks/dev.txt
	touch $@

# tflite-runtime has wheels up to Python 3.11; without one its rows read "not available here".
.venv-tflite/.tried: infra/locks/tflite.txt
	sh infra/locks/tflite_env.sh $(PYTHON)

demo: install
	sh infra/demo.sh

farm-packages:
	sh infra/packages.sh infra/virtual_farm/packages.txt infra/virtual_farm/phone-packages.txt

farm: install-dev farm-packages
	$(FARM) up
	$(BIN)/python -m infra.standins build
	$(BIN)/python -m infra.bundles build aarch64-litert aarch64-onnxruntime

farm-down:
	$(FARM) down

farm-purge:
	$(FARM) down --purge

bundles: install-dev
	$(BIN)/python -m infra.bundles build aarch64-litert aarch64-onnxruntime aarch64-tflite armhf-tflite

test: install-dev
	sh infra/test.sh

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: install-dev
	$(BIN)/python -m tests.benchmarks

validity: install-dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.validity

lock: install-dev
	$(BIN)/python infra/locks/lock.py

schema: install-dev
	$(BIN)/python -m orchestrator.matrix.schema --write

clean:
	rm -rf .assay build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

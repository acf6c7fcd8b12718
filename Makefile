# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test quick check clean

help:  ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo-installed  ## export a small trained network, predict with it, show its accuracy
	@$(BIN)/python examples/demo.py

# one file of tests is run by one process, whose fixtures it shares
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile

test: $(VENV)/.dev-installed  ## run the tests; ARGS="-k fold" goes to pytest; WORKERS=0: one process
	@$(PYTEST) $(ARGS)

quick: $(VENV)/.dev-installed  ## the tests without slow ones and without ../shared
	@$(PYTEST) -m "not slow and not realdata" $(ARGS)

# What nobody tried yet: the seed is the day's. A schedule starts it with the seconds that a night has.
SEED ?= $(shell date +%Y%m%d)
SECONDS_EACH ?= 1800
.PHONY: robustness
robustness: $(VENV)/.dev-installed  ## attack every class with the day's seed, SECONDS_EACH=1800 each
	@ROBUSTNESS_SECONDS=$(SECONDS_EACH) ROBUSTNESS_SEED=$(SEED) \
	    $(BIN)/python -m pytest tests/robustness $(ARGS)

check: $(VENV)/.dev-installed  ## ruff, ruff format, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: docs
docs: $(VENV)/.dev-installed  ## build the documentation as a site in build/site; fails on a broken link
	@$(BIN)/mkdocs build --quiet --strict

.PHONY: links
links: $(VENV)/.dev-installed  ## ask every web address in the pages whether it is there
	@$(BIN)/python examples/check_links.py

clean:  ## remove .venv, what the demo wrote, and every cache
	rm -rf $(VENV) demo-output build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	    .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than pyproject.toml when its extras are installed, so that later runs are instant.
$(VENV)/.demo-installed: pyproject.toml | $(BIN)/python
	@echo "installing resdeploy with PyTorch into $(VENV) (once; several GB on x86-64 Linux)"
	$(PIP) install --quiet --prefer-binary --editable '.[export]' scikit-learn
	@touch $@

$(VENV)/.dev-installed: pyproject.toml | $(BIN)/python
	@echo "installing resdeploy with everything its tests need into $(VENV) (once)"
	$(PIP) install --quiet --prefer-binary --editable '.[dev]'
	@touch $@ $(VENV)/.demo-installed

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
	    { echo "error: $(PYTHON) is not installed: resdeploy needs Python 3.10 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "error: $$($(PYTHON) -V) is too old: resdeploy needs Python 3.10 or newer;" \
	           "choose another with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "error: $(PYTHON) cannot make virtual environments; on Debian and" \
	           "Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) --version | awk '{ exit $$2 + 0 < 23 }' || $(PIP) install --quiet --upgrade pip

.PHONY: arm64-test gpu-test gpu-wheels

arm64-test: $(VENV)/.dev-installed  ## predict and verify on an emulated Arm machine, compare with x86
	@$(BIN)/python tests/arm64/run.py $(ARGS)

# A machine with a GPU may have PyTorch and no network: everything else can be brought as wheels.
GPU_PYTHON ?= python3
WHEELS ?=
gpu-test:  ## tests and latencies on an NVIDIA GPU; WHEELS=DIR installs from there, without network
	@GPU_PYTHON="$(GPU_PYTHON)" WHEELS="$(WHEELS)" bash tests/gpu.sh $(ARGS)

gpu-wheels: $(VENV)/.dev-installed  ## gather in WHEELS=DIR what gpu-test needs beside PyTorch
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir "$(or $(WHEELS),build/wheels)" \
	    . onnx onnx-ir onnxscript onnxsim onnxruntime-gpu safetensors click rich pillow pytest \
	    markdown-it-py mdurl pygments iniconfig pluggy packaging protobuf flatbuffers ml-dtypes \
	    tensorrt-rtx-cu13 tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs

# make quickstart   masks for the boxes of generated videos, train on them, evaluate, draw (about 8 minutes on 2 CPU cores)
# make test         lint and the whole test suite
# make test-fast    the tests that take seconds
# make test-triton  the GPU kernels, in Triton's interpreter; installs Triton
# make test-gpu     the checks that need a CUDA device; skipped in one line where there is none
# make attack       the long attacks of tests/faults/attack, and their table (an hour; ATTACK="--minutes 30" for a part)
# make coverage     the whole test suite, with the share of lines that it runs; fails below 93 %
# make flakes       the fast tests 20 times, and those that do not always end alike
# make audit        known security holes in the versions of constraints.txt
# make lint         ruff check, ruff format --check, mypy
# make format       ruff format, and ruff check with fixes
# make docs         write docs/config.md from the rows in maskfreevis_ext/config/rows
# make clean        remove the environment and what the commands above made
#
# Each makes its own environment in $(VENV) first, with nothing but Python 3.10-3.12 on the machine.
#   make test PYTHON=python3.12      another Python
#   make test TORCH_INDEX=ADDRESS    an index with PyTorch builds without the GPU packages (some GB less)
#   make quickstart OUTPUT=output/seed2 OPTS="SEED 2"   other folder, other config values
#   make quickstart CONFIG=configs/quickstart/maskfreevis_tiny.yaml   from the box losses, without masks

VENV ?= .venv
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$p && break; done)
TORCH_INDEX ?=
OPTS ?=
ATTACK ?=
FLAKES ?=
PY := $(VENV)/bin/python
# One process for each core, and each file of tests in one of them, for what its tests share.
PYTEST := $(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile
STAMP := $(VENV)/.installed
CONFIG := configs/quickstart/maskfreevis_tiny_taught.yaml
DATA := datasets/quickstart
MASKS := $(DATA)/train_grabcut.json
OUTPUT := output/quickstart

.PHONY: quickstart test test-fast test-triton test-gpu attack coverage flakes audit lint format docs clean
.DELETE_ON_ERROR:

$(STAMP): setup.py pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or newer found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install pip; }
	$(PY) -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e ".[dev]"
	touch $@

$(DATA)/val.json: $(STAMP) $(wildcard maskfreevis_ext/data/synthetic/*.py)
	$(PY) tools/make_synthetic.py --output $(DATA) --train-masks --overwrite

$(MASKS): $(DATA)/val.json
	$(PY) tools/boxes_to_masks.py --method grabcut --json $(DATA)/train.json \
		--images $(DATA)/train/JPEGImages --output $@ --overwrite

quickstart: $(MASKS)
	$(PY) tools/train_net.py --config-file $(CONFIG) OUTPUT_DIR $(OUTPUT) $(OPTS)
	$(PY) tools/visualize_results.py --gt $(DATA)/val.json --image-root $(DATA)/val/JPEGImages \
		--results $(OUTPUT)/inference/results.json --output $(OUTPUT)/pictures --overwrite

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy tools/benchmark.py

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(STAMP)
	$(PY) -m maskfreevis_ext.config --output docs/config.md

test: lint
	$(PYTEST)

test-fast: $(STAMP)
	$(PYTEST) -m "not slow"

test-triton: $(STAMP)
	$(PY) -m pip install triton
	TRITON_INTERPRET=1 $(PY) -m pytest tests/losses/pairwise/test_triton_kernels.py

test-gpu: $(STAMP)
	$(PY) -m pytest -rs tests/gpu

attack: $(STAMP)
	$(PY) -m tests.faults.attack $(ATTACK)

coverage: $(STAMP)
	$(PYTEST) --cov --cov-report=term:skip-covered

flakes: $(STAMP)
	$(PY) -m tests.flakes $(FLAKES)

audit: $(STAMP)
	$(PY) -m pip install pip-audit
	$(PY) -m pip_audit --skip-editable

clean:
	rm -rf $(VENV) $(DATA) $(OUTPUT)

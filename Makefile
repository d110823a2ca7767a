# Every target makes its own environment in $(VENV) the first time, and again when the packaging files change.
#
#   make demo                     CPU PyTorch, pinned by constraints-cpu.txt
#   make demo TORCH=cuda          PyPI's PyTorch (on Linux the CUDA build), same versions
#   make demo TORCH=system        the PyTorch (and everything else) that $(PYTHON) already has
#   make demo CONSTRAINTS=        newest versions instead of the pinned ones
#   make demo PIP_ARGS="..."      anything else for pip, such as another index
#
# Changing TORCH or CONSTRAINTS asks for another environment: `make clean`, or VENV=some/other/folder.

PYTHON      ?= $(shell command -v python3.11 || command -v python3)
VENV        ?= .venv
TORCH       ?= cpu
CONSTRAINTS ?= constraints-cpu.txt
PIP_ARGS    ?=
OUT         ?= runs/demo
JOBS        ?= 2

# Where CPU wheels of PyTorch lie. Where this index cannot be reached, pip skips it and takes torch from its own.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

ifeq ($(TORCH),cpu)
TORCH_ARGS ?= --retries 1 --extra-index-url $(TORCH_CPU_INDEX)
else ifeq ($(TORCH),cuda)
TORCH_ARGS ?=
else ifeq ($(TORCH),system)
VENV_ARGS ?= --system-site-packages
CONSTRAINTS = 
else
$(error TORCH must be cpu, cuda or system, got '$(TORCH)')
endif

BIN        := $(VENV)/bin
PIP        := $(BIN)/python -m pip --disable-pip-version-check install $(PIP_ARGS) $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
PACKAGING  := setup.cfg pyproject.toml $(CONSTRAINTS)
NOTEBOOKS  := $(sort $(wildcard examples/*.ipynb))

export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format type bench notebooks docs clean

help:  ## say what each target does
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.installed  ## plan in mazes with the shipped world model; writes runs/demo/ (about 3 minutes)
	$(BIN)/lssvwm demo --out $(OUT)

test: $(VENV)/.installed-dev  ## run the tests on JOBS=2 processes, one thread each
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev  ## check style and formatting with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev  ## let ruff format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Type checkers cannot follow the folder mapping in setup.cfg: build the package and check what users would install.
type: $(VENV)/.installed-dev  ## check the types of worldmodel and planners with mypy --strict
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(BIN)/python -m build --no-isolation --outdir "$$folder/dist" . >"$$folder/log" 2>&1 \
	    || { cat "$$folder/log"; exit 1; }; \
	$(BIN)/python -m zipfile -e "$$folder"/dist/*.whl "$$folder/package"; \
	mypy=$$(cd $(BIN) && pwd)/mypy; cache=$$(pwd)/.mypy_cache; config=$$(pwd)/pyproject.toml; cd "$$folder/package"; \
	MYPYPATH="$$folder/package" "$$mypy" --config-file "$$config" --cache-dir "$$cache" \
	    -p lssvwm_agents.worldmodel -p lssvwm_agents.planners

bench: $(VENV)/.installed-dev  ## measure the speed of the maze environment
	$(BIN)/python benchmarks/maze_speed.py

ifeq ($(NOTEBOOKS),)
notebooks:
	@echo "No notebooks in examples/ yet: nothing to run."
else
notebooks: $(VENV)/.installed-notebooks  ## run every notebook in examples/
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest --nbmake --nbmake-timeout=900 $(NOTEBOOKS)
endif

docs: $(VENV)/.installed-docs  ## build the documentation site in build/site, warnings being errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Written to build/site: open build/site/index.html in a browser."

clean:  ## remove the environment, builds and caches (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, got " + sys.version)'
	$(PYTHON) -m venv $(VENV_ARGS) $(VENV)

$(VENV)/.installed: $(PACKAGING) | $(BIN)/python
	$(PIP) $(TORCH_ARGS) torch
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.installed-notebooks: $(VENV)/.installed-dev
	$(PIP) -e '.[notebooks]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e '.[docs]'
	@touch $@

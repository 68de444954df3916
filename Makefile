# Two commands: make demo, make test. Everything else is for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench bench-detect acceptance viewer-check clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,viewer]'
	@touch $@

demo: $(READY) ## scanner, node and PACS on this machine; results in demo-out/
	$(BIN)/dicomnode demo

test: $(READY) ## the whole test suite (acceptance tests run where Orthanc, DCMTK and the validators are installed)
	$(BIN)/python -m pytest

acceptance: $(READY) ## only the acceptance tests
	$(BIN)/python -m pytest -m acceptance

viewer-check: $(READY) ## the node's results in OHIF; photographs in viewer-out/ (docs/viewer-check.md)
	$(BIN)/python -m tests.viewer viewer-out

check: $(READY) ## format, lint, types, layers
	$(BIN)/ruff format --check dicomnode tests
	$(BIN)/ruff check dicomnode tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## put the code in shape
	$(BIN)/ruff format dicomnode tests
	$(BIN)/ruff check --fix dicomnode tests

bench: $(READY) ## benchmarks; writes docs/benchmarks.md
	$(BIN)/python -m tests.bench

bench-detect: $(READY) ## speed of the detectors, on the GPU where there is one; writes docs/benchmarks.md
	$(BIN)/python -m tests.bench.detect

clean: ## remove what make made
	rm -rf $(VENV) demo-out viewer-out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

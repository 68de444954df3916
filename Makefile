# Two commands: make demo, make test. Everything else is for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
TOOLS := .venv-tools

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench bench-detect bench-overhead bench-receive bench-scale chaos robustness soak acceptance viewer-check fuzz lock audit-dependencies clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt requirements.lock requirements-cpu.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes --no-deps --requirement requirements-cpu.lock 2> /dev/null \
		|| echo "torch without CUDA is not offered here: PyPI's build follows"
	$(PIP) install --quiet --require-hashes --no-deps --requirement requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check > /dev/null || $(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## scanner, node and PACS on this machine; results in demo-out/
	$(BIN)/dicomnode demo

# Several processes, each with whole files, the long ones (acceptance) first; the cores are theirs, not BLAS's.
# Nodes are started by the hundred: what Python has compiled once is kept.
test: export OMP_NUM_THREADS := 1
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY) ## the whole test suite (acceptance tests run where Orthanc, DCMTK and the validators are installed)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --max-worker-restart 1

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

bench: $(READY) ## the way of a study, audit log and jobs; writes docs/benchmarks.md
	$(BIN)/python -m tests.bench

bench-receive: $(READY) ## reception beside DCMTK and Orthanc, half an hour; writes docs/benchmarks.md
	$(BIN)/python -m tests.bench.receive_bench --output docs/benchmarks.md

robustness: $(READY) ## the files of CORPUS (a folder, tar archives) through a running node; the table of what became of them
	$(BIN)/python -m tests.robustness $(CORPUS)

bench-detect: $(READY) ## speed of the detectors, on the GPU where there is one; writes docs/benchmarks.md
	$(BIN)/python -m tests.bench.detect

fuzz: $(READY) ## ten minutes of hostile input for everything that reads what others wrote (docs/security.md, S20)
	$(BIN)/python -m tests.fuzz --minutes 10

$(TOOLS)/.ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet uv==0.13.9 pip-audit==2.10.1
	@touch $@

lock: $(READY) $(TOOLS)/.ready ## requirements.lock from constraints.txt
	$(BIN)/python -m tests.supply lock --uv $(TOOLS)/bin/uv

audit-dependencies: $(READY) ## known vulnerabilities of what is pinned; says so where no service answers
	$(MAKE) $(TOOLS)/.ready || echo "COULD NOT BE ASKED: pip-audit cannot be installed here"
	test ! -e $(TOOLS)/.ready || $(BIN)/python -m tests.supply audit --pip-audit $(TOOLS)/bin/pip-audit

chaos: $(READY) ## 200 kills, 400 power cuts, 10,000 instances; writes docs/reliability.md
	$(BIN)/python -m tests.chaos --rounds 200

soak: $(READY) ## half an hour of scanners and faults; writes docs/reliability.md
	$(BIN)/python -m tests.soak --minutes 30

bench-scale: $(READY) ## claims, questions and status with 1,000,000 audit rows; writes docs/benchmarks.md
	$(BIN)/python -m tests.bench.scale

bench-overhead: $(READY) ## what the node costs around a detector that takes no time; writes docs/benchmarks.md
	$(BIN)/python -m tests.bench.overhead

clean: ## remove what make made
	rm -rf $(VENV) $(TOOLS) fuzz-failures demo-out viewer-out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

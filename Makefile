# `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DISTRIBUTIONS := orchestrator-common orchestrator-server orchestrator-client
SOURCES := $(DISTRIBUTIONS:%=%/src)
TESTS := $(DISTRIBUTIONS:%=%/tests) tests-e2e tests-browser tests-images
PYTEST_ARGS ?=
# Two more than CPUs: half of the time of a test is waiting for processes and disks.
WORKERS ?= $(shell expr $$(nproc) + 2)
MINUTES ?= 10
ONLY ?=
SIZE ?= full
# Workers take tests from each other, so that a slow test at the end does not keep one worker alone.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-batch coverage lint format typecheck test-unit test-newest test-e2e test-browser screenshots test-images docs man up fuzz clean constraints settings-tables openapi set-version dist bench bench-smoke bench-original soak

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Stamp files: a target is rebuilt only after a change of its dependencies.
$(VENV)/.installed: constraints.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt $(DISTRIBUTIONS:%=-e ./%) -e './orchestrator-common[cli]'
	@touch $@

$(VENV)/.example: $(VENV)/.installed examples/interface/requirements.txt
	$(PIP) install -c constraints.txt -r examples/interface/requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.example pyproject.toml
	$(PIP) install -c constraints.txt -r requirements-dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.installed bench/requirements.txt
	$(PIP) install -c constraints.txt -r bench/requirements.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) install -c constraints.txt zensical mkdocstrings-python
	@touch $@

install: $(VENV)/.installed  ## create .venv with both services and the command jo

demo: $(VENV)/.example  ## run the example job from upload to result
	@$(BIN)/python examples/demo.py

test: lint typecheck  ## run lint, types, and all tests except the slow ones
	$(PYTEST) --durations=20 $(PYTEST_ARGS)

test-slow: $(VENV)/.dev  ## run the tests that are slow and guard what rarely changes
	$(PYTEST) -m slow --durations=20 $(PYTEST_ARGS)

# One after the other: the daemons of a cluster are not made to share a machine with many tests.
test-batch: $(VENV)/.dev  ## run the tests with a real Slurm and Grid Engine
	$(BIN)/python -m pytest -m batch --durations=20 $(PYTEST_ARGS)

coverage: lint typecheck  ## the same as test, with the coverage of each module; at least 90 %
	$(PYTEST) --cov --cov-report=term:skip-covered --durations=20 $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## check style and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One run for each folder of tests: they contain modules of the same name, such as conftest.
typecheck: $(VENV)/.dev  ## check the types of sources and tests
	$(BIN)/mypy $(SOURCES) bench scripts examples conftest.py
	for tests in $(TESTS); do MYPYPATH=$$tests $(BIN)/mypy $$tests || exit 1; done

test-unit: $(VENV)/.dev  ## run the tests of the three distributions
	$(PYTEST) $(DISTRIBUTIONS:%=%/tests) $(PYTEST_ARGS)

TESTS_OF_NEWEST ?= orchestrator-common/tests tests-e2e/test_footprint.py tests-e2e/test_job_lifecycle.py tests-e2e/test_sdk.py

test-newest: $(VENV)/.dev  ## run some tests with another Python; VENV=.venv-newest PYTHON=python3.13
	$(PYTEST) $(TESTS_OF_NEWEST) $(PYTEST_ARGS)

test-e2e: $(VENV)/.dev  ## run the tests with real processes
	$(PYTEST) tests-e2e $(PYTEST_ARGS)

fuzz: $(VENV)/.dev  ## fuzz the parsers and each API, for FUZZ_SECONDS (600) on each API
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-5000} $(PYTEST) -m '' \
	  --timeout=7200 orchestrator-*/tests/test_fuzz.py \
	  orchestrator-server/tests/store/test_store_state_machine.py tests-e2e/test_fuzz_api.py $(PYTEST_ARGS)

test-browser: $(VENV)/.dev  ## run the tests of the dashboard in Chromium
	$(PYTEST) tests-browser $(PYTEST_ARGS)

screenshots: $(VENV)/.dev  ## create the screenshots of the dashboard in docs/images
	PYTHONPATH=tests-e2e $(BIN)/python tests-browser/screenshots.py

test-images: $(VENV)/.dev  ## build the images and run compose.yaml (needs podman and buildah)
	$(BIN)/python -m pytest tests-images -rs --timeout=900 -p no:randomly $(PYTEST_ARGS)

bench: $(VENV)/.bench  ## run the benchmarks and compare with floors; ONLY=latency,accept selects some, BASELINE=<revision> compares with it
	$(BIN)/python -m bench --size $(SIZE) --only "$(ONLY)" $(if $(BASELINE),--baseline $$($(BIN)/python scripts/baseline.py $(BASELINE)))

bench-smoke: $(VENV)/.dev $(VENV)/.bench  ## run every benchmark with a minimal size, in seconds
	$(PYTEST) bench/tests $(PYTEST_ARGS)

bench-original: $(VENV)/.bench  ## compare with the original, whose program ORIGINAL_BINARY names
	ORIGINAL_BINARY="$(ORIGINAL_BINARY)" $(BIN)/python -m bench.original

soak: $(VENV)/.dev  ## inject random faults and check the promises; MINUTES=10 SEED=1
	$(BIN)/python tests-e2e/faults/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

docs: $(VENV)/.docs  ## build the documentation into site/
	$(BIN)/zensical build --clean --strict

settings-tables: $(VENV)/.installed  ## write the tables of settings in README.md and docs/
	$(BIN)/python scripts/settings_tables.py

openapi: $(VENV)/.installed  ## write the OpenAPI documents of both services to docs/openapi/
	$(BIN)/python scripts/openapi_documents.py

set-version: $(VENV)/.installed  ## set the version of the three distributions; VERSION=1.2.0
	$(BIN)/python scripts/set_version.py $(VERSION)

dist: $(VENV)/.dev  ## build sdists and wheels into dist/
	rm -rf dist
	for each in $(DISTRIBUTIONS); do $(BIN)/python -m build --outdir dist $$each || exit 1; done

man: $(VENV)/.installed  ## make the manual pages of jo in build/man/man1
	$(BIN)/python -m job_orchestrator.cli.manual build/man/man1

up: $(VENV)/.installed  ## run both services in the foreground; Ctrl-C stops them
	@$(BIN)/python examples/up.py

constraints:  ## resolve and write the exact versions (constraints.txt)
	rm -rf $(VENV)-constraints && $(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/pip install -q $(DISTRIBUTIONS:%=./%) -r examples/interface/requirements.txt \
	  -r requirements-dev.txt -r bench/requirements.txt zensical mkdocstrings-python
	{ echo "# Exact versions that are tested together; made by: make constraints"; \
	  $(VENV)-constraints/bin/pip freeze --exclude-editable | grep -v '^job-orchestrator-'; } > constraints.txt
	rm -rf $(VENV)-constraints

clean:  ## remove all files that make has created
	rm -rf $(VENV) site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything installs into .venv in this folder. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
READY_BENCH := .venv/.ready-bench

# Packages without their own tests are compiled by all processors at once, which pip would do by one.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-compile --editable
COMPILE = $(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests?/' .venv/lib || true

# One process more than there are processors, as many tests wait: for brokers, time limits, simulators that hang. Files
# in their order: short ones come last, so that the processes end together. Every command imports what it needs, and
# would compile it anew if it could not keep the outcome.
PYTEST = $(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run test check coverage bench docs clean

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@echo "setting up .venv (about two minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(INSTALL) '.[dev]'
	@$(COMPILE)
	@touch $@

$(READY_BENCH): $(READY)
	@$(INSTALL) '.[dev,bench]'
	@touch $@

# The main job: three summer days on mv5; leaves results/mv5_threshold.h5 and its report.
run: $(READY)
	@$(BIN)/cosim run scenarios/mv5_threshold.yaml

# Style, types, layers, then all tests.
test: check
	@$(PYTEST)

# All tests with the lines that none of them reaches; half as long again.
coverage: $(READY)
	@$(PYTEST) --cov --cov-report=term

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

bench: $(READY_BENCH)
	@$(BIN)/python tests/bench/run.py

# Pages that are generated from the code.
docs: $(READY)
	@$(BIN)/python -m cosim.scenario.reference > docs/scenario.md
	@$(BIN)/python -m cosim.coordination.reference > docs/coordination.md

clean:
	@rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage

# Every target works from a fresh clone: what it needs is set up first, in .venv, and kept for the next time.
# PYTHON=/path/to/python3 names the interpreter to make .venv with (3.11 or newer).

PY := .venv/bin/python
# Test files that run at the same time, more than there are cores: most end-to-end tests wait. AT_ONCE= for one after the other.
AT_ONCE := -n 3 --dist loadfile --no-loadscope-reorder
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup simulate test quick check bench fuzz docs lock clean

help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

.venv/stamp-simulation: pyproject.toml constraints.txt .ci/venv
	.ci/venv simulation

.venv/stamp-dev: pyproject.toml constraints.txt .ci/venv
	.ci/venv dev

setup: .venv/stamp-dev ## the virtual environment with everything for development

simulate: .venv/stamp-simulation ## play recorded frames through the real bridge to a stand-in for the endpoint
	.venv/bin/lorabridge simulate

test: .venv/stamp-dev ## every test, with coverage and its bounds
	.ci/mosquitto
	.ci/fault-tools
	.ci/tpm-tools
	rm -f .coverage .coverage.*
	$(PY) -m coverage run -m pytest $(AT_ONCE) $(PYTEST_ARGS)
	.ci/coverage

quick: .venv/stamp-dev ## the tests that take no more than a few seconds each
	$(PY) -m pytest -m "not slow" $(AT_ONCE) $(PYTEST_ARGS)

check: .venv/stamp-dev ## style, types, layers, spelling, scripts, documents, example configuration
	.ci/check

bench: .venv/stamp-dev ## the benchmarks: a table, and build/bench.json
	.ci/mosquitto
	$(PY) tests/bench

fuzz: .venv/stamp-dev ## the property tests of every parser, for longer (FUZZ_EXAMPLES each)
	$(PY) -m pytest tests/fuzz --hypothesis-profile=fuzz --timeout=0 $(PYTEST_ARGS)

docs: .venv/stamp-dev ## write again what docs/ has from the source
	$(PY) docs/generate.py

lock: ## write constraints.txt anew from what pyproject.toml allows today
	.ci/lock

clean: ## remove what make made, .venv too
	rm -rf .venv build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

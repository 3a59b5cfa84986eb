# Every target sets up what it needs: .venv with the dependencies, and the
# tools that record tests. PYTHON=/path/to/python chooses the interpreter.

PYTHON ?=
VENV = .venv
ARGS ?=
PYTEST = $(VENV)/bin/pytest

# The tests start Python thousands of times, and each would compile the plugin anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint suite tools clean

help:
	@echo "make demo   run examples/ under two hubs with every tracer on"
	@echo "make test   run this project's tests (ARGS='...' goes to pytest)"
	@echo "make lint   ruff, mypy --strict and import-linter"
	@echo "make suite  run eventlet's own test suite under two hubs"
	@echo "make clean  remove what the targets above made"

# One test of the demo fails on the asyncio hub: that is what it shows. So
# pytest's exit status 1 (tests failed) is success here, and nothing else is.
demo: $(VENV)/.ready tools
	@$(PYTEST) --eventlet-hub=epolls,asyncio --strace --cprofile --pcap $(ARGS) examples/; \
	status=$$?; \
	if [ $$status -ne 1 ]; then \
		echo "demo: pytest ended with status $$status; 1 was expected," \
			"one test that fails on the asyncio hub" >&2; exit 1; \
	fi; \
	echo "demo: open eventlet-debug/index.html to look at the report"

# Most tests wait for processes, so that two at a time take half the time. A shared machine
# stalls now and then for longer than a real server or tracer waits: then a test runs again.
test: $(VENV)/.ready tools
	$(PYTEST) --timeout=300 -n 2 --reruns 2 $(ARGS)

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

suite: $(VENV)/.ready tools
	$(VENV)/bin/pip install --quiet aiohttp
	scripts/eventlet-suite $(VENV)/bin/python .eventlet-suite $(ARGS)

tools:
	@scripts/setup-tools

$(VENV)/.ready: pyproject.toml setup.py scripts/setup-venv pytest_eventlet_debug/profiling/_native.c
	PYTHON="$(PYTHON)" scripts/setup-venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) .tox .eventlet-suite eventlet-debug upgrade build dist .coverage .coverage.* \
		htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info \
		pytest_eventlet_debug/profiling/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

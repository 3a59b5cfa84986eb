# Every target sets up what it needs: .venv with the dependencies, and the
# tools that record tests. PYTHON=/path/to/python chooses the interpreter.

PYTHON ?=
VENV = .venv
ARGS ?=
PYTEST = $(VENV)/bin/pytest

# The tests start Python thousands of times, and each would compile the plugin anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test faults coverage sanitize lint docs linkcheck dist downstream suite bench tools clean

help:
	@echo "make demo        run examples/ under two hubs with every tracer on"
	@echo "make test        run this project's tests (ARGS='...' goes to pytest)"
	@echo "make faults      those that inject the faults of docs/faults.rst"
	@echo "make coverage    the same, and fail if less of the code is covered than before"
	@echo "make sanitize    tests of the code in C, under AddressSanitizer and UBSan"
	@echo "make lint        ruff, mypy --strict, import-linter and codespell"
	@echo "make docs        build the documentation into docs/_build/html"
	@echo "make linkcheck   check the documentation's links to other sites"
	@echo "make dist        build, check and try what is published, in dist/"
	@echo "make downstream  compare suites of others with runs by hand (ARGS='oslo.log' for one)"
	@echo "make suite       run eventlet's own test suite under two hubs"
	@echo "make bench       run all benchmarks, quickly, into one table"
	@echo "make clean       remove what the targets above made"

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

# Tests wait for processes a part of their time: three at once use two CPUs well, four are slower.
test: $(VENV)/.ready tools
	$(PYTEST) --timeout=300 -n 3 $(ARGS)

faults: $(VENV)/.ready tools
	$(PYTEST) --timeout=300 -n 3 -m fault $(ARGS)

coverage: $(VENV)/.ready tools
	$(VENV)/bin/coverage erase
	PYTEST_EVENTLET_DEBUG_PRELUDE=$(CURDIR)/tests/measured.py \
		$(VENV)/bin/coverage run -m pytest --timeout=300 -n 3 $(ARGS)
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report --skip-covered

sanitize: tools
	PYTHON="$(PYTHON)" scripts/sanitize .sanitize $(ARGS)

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell

docs: $(VENV)/.docs
	$(VENV)/bin/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

linkcheck: $(VENV)/.docs
	$(VENV)/bin/sphinx-build --fail-on-warning --quiet -b linkcheck docs docs/_build/linkcheck

dist: $(VENV)/.release
	scripts/dist $(VENV) dist

downstream: $(VENV)/.ready
	$(VENV)/bin/python scripts/downstream.py $(ARGS)

suite: $(VENV)/.ready tools
	$(VENV)/bin/pip install --quiet aiohttp
	scripts/eventlet-suite $(VENV)/bin/python .eventlet-suite $(ARGS)

bench: $(VENV)/.ready tools
	$(VENV)/bin/python benchmarks/bench.py

tools:
	@scripts/setup-tools

$(VENV)/.ready: pyproject.toml setup.py scripts/setup-venv $(wildcard pytest_eventlet_debug/*/*.[ch])
	PYTHON="$(PYTHON)" scripts/setup-venv $(VENV)
	@touch $@

# What few need is installed by the target that needs it.
$(VENV)/.docs $(VENV)/.release: $(VENV)/.%: $(VENV)/.ready
	$(VENV)/bin/python -m pip install --quiet --group $*
	@touch $@

clean:
	rm -rf $(VENV) .tox .eventlet-suite .downstream .sanitize eventlet-debug upgrade build dist docs/_build \
		.coverage .coverage.* htmlcov .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache *.egg-info pytest_eventlet_debug/*/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make` alone explains itself. Every target works on a fresh clone.
.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-laws fuzz check lint types format lock bench databases clean

# Done once, and again when a lock or pyproject.toml changes.
RUNTIME := .venv/.installed
DEV := .venv/.installed-dev
SERVERS := .venv/bin/python -m tests.servers

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run: $(RUNTIME) ## serve the demo at http://127.0.0.1:8000 and say what to try (PORT=8001 make run)
	@.venv/bin/python tools/run.py

# Side by side, because most that is long waits; whole modules, because their stories are told once.
test: $(DEV) ## run all tests, on SQLite, PostgreSQL and MariaDB (ARGS="-k cursor" picks)
	@$(SERVERS) run .venv/bin/python -m pytest -n auto --dist loadfile $(ARGS)

test-fast: $(DEV) ## run the tests that need nothing but Python: pure ones and SQLite
	@.venv/bin/python -m pytest --ignore=tests/server --ignore=tests/writers \
		-k "not postgresql and not mariadb" $(ARGS)

test-laws: $(DEV) ## try each law on 20,000 random histories, requests and rows (SEED=7 repeats, ARGS="-k law_7" picks)
	@seed=$${SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} && echo "SEED=$$seed" && \
		.venv/bin/python -m pytest --hypothesis-profile=laws --hypothesis-seed="$$seed" \
		--durations=0 tests/test_*_laws.py $(ARGS)

fuzz: $(DEV) ## hold the doors to their OpenAPI document at random (MINUTES=10 in all, SEED=7 repeats)
	@seed=$${SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} && echo "SEED=$$seed" && \
		FUZZ_SEED="$$seed" FUZZ_MINUTES="$${MINUTES:-10}" $(SERVERS) run \
		.venv/bin/python -m pytest --durations=0 tests/server/test_openapi.py $(ARGS)

check: lint types test ## do what CI does, in its order

lint: $(DEV) ## check style and format
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check

types: $(DEV) ## check types
	@.venv/bin/mypy

format: $(DEV) ## mend style and format
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

lock: .venv/bin/python ## write the lock files from pyproject.toml (UPGRADE=1 takes the newest)
	@tools/lock

bench: $(DEV) ## measure, and print tables with the machine (ARGS="--quick mover" picks)
	@$(SERVERS) run .venv/bin/python -m bench $(ARGS)

databases: $(DEV) ## start PostgreSQL and MariaDB for the tests and leave them running
	@$(SERVERS) start

clean: ## stop and delete the test databases, the environment and caches; keep var/events.db
	@if [ -x .venv/bin/python ]; then $(SERVERS) remove; fi
	@rm -rf .venv var/uv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): requirements.lock pyproject.toml
	@tools/venv requirements.lock
	@touch $@

$(DEV): requirements-dev.lock pyproject.toml
	@tools/venv requirements-dev.lock
	@touch $@ $(RUNTIME)

.venv/bin/python:
	@tools/venv requirements-dev.lock

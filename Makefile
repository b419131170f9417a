# make demo    a real round trip on this machine
# make test    lint, types and the whole suite (what lands must pass it)
# make quick   the inner loop: no real OpenCode and no whole dispatches, under a minute
# make slow    tests that take minutes
# make faults  the whole fault matrix (SEED=1 JOBS=cores; its table goes into docs/reliability.md), then random histories
# make lint    format, lint, types, import directions, shell, the plugin's JavaScript
# make bench   benchmarks, under twenty minutes: .cache/bench.json and docs/performance.md (SECTIONS="dispatches peer": only these)

PYTHON ?= python3
BIN := .venv/bin
OPENCODE_DIRECTORY := .cache/opencode
SHELL_FILES := $(shell find . \( -name .venv -o -name .cache -o -name .git \) -prune -o -name '*.sh' -print) $(wildcard .ci/run)
# PYTHON_JOBS limits the tests that run at the same time: more than cores, for many of them wait; each real OpenCode
# wants a core and half a gigabyte.
PYTHON_JOBS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores + cores / 2)))
# Without Python's cache of compiled modules each worker of each run would compile every test.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n $(PYTHON_JOBS)
# Directories without a test for `make quick`, which each worker would collect in vain.
QUICK_WITHOUT := $(addprefix --ignore=tests/,bad_input machine main_path real)
# HISTORIES is how many random histories of commands and mishaps `make faults` plays: under six minutes on 4 cores.
HISTORIES ?= 200

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick slow faults lint format bench

help:
	@sed -n 's/^# make /make /p' Makefile

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

setup: .venv/.installed
	@sh tools/ensure-opencode.sh $(OPENCODE_DIRECTORY)
	@sh tools/ensure-program.sh sshd openssh-server
	@sh tools/ensure-program.sh tmux tmux

demo: .venv/.installed
	@sh tools/ensure-opencode.sh $(OPENCODE_DIRECTORY)
	@PATH="$(CURDIR)/$(OPENCODE_DIRECTORY)/node_modules/.bin:$$PATH" $(BIN)/remote-dispatch demo

lint: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck $(SHELL_FILES)
	node --input-type=module --check <remote_dispatch/plugin/remote-dispatch.js
	node --check benchmarks/remote_login.mjs

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup lint
	$(PYTEST) --dist worksteal -m "not slow"

quick: .venv/.installed
	$(PYTEST) -m "not real and not slow and not whole and not thorough" $(QUICK_WITHOUT)

slow: setup
	$(PYTEST) -m slow

faults: setup
	$(BIN)/python -m tests.faults --write $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS))
	@echo "$(HISTORIES) random histories of commands, crashes and mishaps:"
	REMOTE_DISPATCH_TEST_EXAMPLES=$(HISTORIES) $(PYTEST) tests/machine

bench: setup
	@sh tools/ensure-program.sh rsync rsync || echo "the figures of rsync are left out"
	@sh tools/ensure-peer.sh .cache/peer || echo "the figures of the peer are left out"
	$(BIN)/python -m benchmarks $(SECTIONS)

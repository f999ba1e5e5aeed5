# `make help` lists the targets. Each one installs what it needs and is quick the second time.

PYTHON ?= python3
VENV ?= .venv
APP ?= examples.welcome:app
ARGS ?=
JOBS ?= $(shell nproc)
CASES ?=
WERROR ?= false
TARGET ?= websocket
SECONDS ?= 60
MINUTES ?= 20

BIN := $(VENV)/bin
BUILD := build/$(patsubst .%,%,$(notdir $(VENV)))
ASAN := $(VENV)-asan
COV := $(VENV)-cov
C_FILES = $(shell find csrc bench fuzz tests -name '*.[ch]')
# What frees memory late or never on purpose is Python; leaks of the C core show in the C tests.
ASAN_ENV = LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
	PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:quarantine_size_mb=16 \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

export PYTHON VENV
export MESON_ARGS = -Dwerror=$(WERROR)
.DEFAULT_GOAL := help
.PHONY: help build run test test-tls ctest autobahn browser soak lint fmt asan fuzz cov sdist clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  PYTHON=python3.12         the interpreter; another version replaces $(VENV)'
	@echo '  APP=package.module:app    what `make run` serves ($(APP))'
	@echo '  ARGS="--port 9000"        further words for asgiserver (run) or pytest (test, asan, cov)'
	@echo '  JOBS=2                    pytest processes'
	@echo '  TARGET=websocket          what `make fuzz` feeds, of fuzz/fuzz_*.c, for SECONDS=60'

build: ## an editable install in .venv, with the console script .venv/bin/asgiserver
	@tools/setup.sh
	@ln -sfn ../$(BUILD)/bench/floor ../$(BUILD)/bench/ws_load bench

run: ## serve an application: make run [APP=package.module:app] [ARGS="--port 9000"]
	@tools/setup.sh $(EXAMPLES)
	@exec $(BIN)/asgiserver $(ARGS) $(APP)

# Some examples are applications of frameworks.
EXAMPLES = $(if $(filter examples.%,$(filter-out %hello:app examples.welcome:app examples.chat:app,$(APP))),examples)

test: ## all tests: the C tests, then pytest
	@tools/setup.sh test
	@failed=; \
	$(BIN)/meson test -C $(BUILD) --no-rebuild --quiet --print-errorlogs || failed=1; \
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS) && [ -z "$$failed" ]

test-tls: ## the tests of requests once more, over TLS
	@tools/setup.sh test
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --tls $(OVER_TLS) $(ARGS)
OVER_TLS = $(addprefix tests/e2e/test_,$(addsuffix .py,cases http1 asgi wsgi frameworks threads \
	stopping leaks workers))

ctest: build ## the C tests alone
	@$(BIN)/meson test -C $(BUILD) --no-rebuild --print-errorlogs

autobahn: ## Autobahn|Testsuite against WebSocket over both loops; CASES="1.* 12.1.1" selects
	@tools/setup.sh
	@$(BIN)/python tools/autobahn.py --jobs $(JOBS) --cases "$(CASES)"

browser: ## the chat example in a headless Chromium, which is installed when it is missing
	@tools/setup.sh test browser
	@$(BIN)/python -m pytest $(ARGS) tests/e2e/test_browser.py

soak: ## mixed traffic with every answer checked: make soak [MINUTES=20] [ARGS="--seed 1"]
	@tools/setup.sh test
	@$(BIN)/python tests/soak/soak.py --minutes $(MINUTES) $(ARGS)

lint: ## ruff, mypy, clang-format, clang-tidy, generated documents
	@tools/setup.sh test lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	tools/tidy.sh $(BIN)/clang-tidy $(BUILD)
	$(BIN)/python tools/gen_config_docs.py --check

fmt: ## format everything
	@tools/setup.sh lint
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

asan: ## all tests against a build with the address and undefined behaviour sanitizers
	@tools/setup.sh test
	@VENV=$(ASAN) SHARE=$(VENV) MESON_ARGS="$(ASAN_BUILD)" tools/setup.sh
	@failed=; \
	$(BIN)/meson test -C $(BUILD)-asan --no-rebuild --quiet --print-errorlogs || failed=1; \
	$(ASAN_ENV) $(ASAN)/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS) && [ -z "$$failed" ]
ASAN_BUILD = $(MESON_ARGS) -Db_sanitize=address,undefined -Db_lundef=false -Db_lto=false \
	-Dbuildtype=debugoptimized -Db_ndebug=false

fuzz: ## libFuzzer on a target of fuzz/, with the sanitizers: make fuzz [TARGET=websocket] [SECONDS=60]
	@tools/setup.sh fuzz
	@[ -f build/fuzz/build.ninja ] || CC=clang $(BIN)/meson setup build/fuzz $(FUZZ_BUILD)
	@$(BIN)/ninja -C build/fuzz --quiet fuzz/fuzz_$(TARGET)
	@mkdir -p build/fuzz/corpus/$(TARGET)
	UBSAN_OPTIONS=halt_on_error=1 build/fuzz/fuzz/fuzz_$(TARGET) -max_total_time=$(SECONDS) \
		-max_len=4096 -artifact_prefix=build/fuzz/ build/fuzz/corpus/$(TARGET) fuzz/corpus/$(TARGET)
FUZZ_BUILD = -Dtests=true -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
	-Dbuildtype=debugoptimized

cov: ## coverage of the C and Python sources by all tests, in build/coverage
	@tools/setup.sh test cov
	@VENV=$(COV) SHARE=$(VENV) MESON_ARGS="$(COV_BUILD)" tools/setup.sh
	@find $(BUILD)-cov -name '*.gcda' -delete
	@rm -rf build/coverage .coverage .coverage.*
	@mkdir -p build/coverage
	@$(BIN)/meson test -C $(BUILD)-cov --no-rebuild --quiet --print-errorlogs
	@$(COV)/bin/python -m coverage run -m pytest -n $(JOBS) --dist worksteal $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage html --quiet --directory build/coverage/python
	@$(BIN)/coverage report
	@$(BIN)/gcovr --root . --filter csrc/ --object-directory $(BUILD)-cov --txt \
		--html-details build/coverage/c.html $(BUILD)-cov
COV_BUILD = $(MESON_ARGS) -Db_coverage=true -Db_lto=false -Dbuildtype=debugoptimized -Db_ndebug=false

sdist: ## a source distribution of the last commit, in dist
	@tools/setup.sh
	@mkdir -p dist
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -c \
		'import sys; sys.path.insert(0, "tools"); import build_backend; build_backend.build_sdist("dist")'

clean: ## remove the environments and everything that was built
	rm -rf $(VENV) $(VENV)-* build dist bench/floor bench/ws_load .mypy_cache .ruff_cache .pytest_cache .coverage*

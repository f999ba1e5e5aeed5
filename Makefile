# `make help` lists the targets. Each one installs what it needs and is quick the second time.

PYTHON ?= python3
VENV ?= .venv
APP ?= examples.welcome:app
ARGS ?=
JOBS ?= $(shell nproc)
CASES ?=
FRONTS ?=
WERROR ?= false
TARGET ?=
SECS ?= 60
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
.PHONY: help build run test test-tls ctest autobahn browser smuggling soak exhaust bench bench-all bench-peers \
	icount lint fmt asan tsan memcheck analyze faults fuzz fuzz-long cov mutants sdist wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  PYTHON=python3.12         the interpreter; another version replaces $(VENV)'
	@echo '  APP=package.module:app    what `make run` serves ($(APP))'
	@echo '  ARGS="--port 9000"        further words for asgiserver (run) or pytest (test, asan, cov)'
	@echo '  JOBS=2                    pytest processes'
	@echo '  TARGET=websocket SECS=60  what `make fuzz` feeds, of fuzz/fuzz_*.c, and for how long each'

build: ## an editable install in .venv, with the console script .venv/bin/asgiserver
	@tools/setup.sh
	@ln -sfn $(addprefix ../$(BUILD)/bench/,floor bare ws_load http_load) bench

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
OVER_TLS = $(addprefix tests/e2e/test_,$(addsuffix .py,cases connections http1 asgi lifespan wsgi wsgi_responses \
	frameworks threads stopping leaks workers))

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

exhaust: ## attacks on memory, time and descriptors: make exhaust [ARGS="--only slow --seconds 12"]
	@tools/setup.sh test
	@PYTHONPATH=tests $(BIN)/python -m exhaust.exhaust $(ARGS)

smuggling: ## tricks through ten front ends, installed when missing; FRONTS="nginx squid" selects
	@tools/setup.sh test fronts
	@PYTHONPATH=tests $(BIN)/python -m support.smuggling_matrix $(FRONTS)

bench: bench-peers ## CPU a request beside other servers, with the targets; 25 minutes, ARGS=--quick: a glance
	@$(BIN)/python bench/run.py $(ARGS)

bench-all: bench-peers ## every server in every scenario, and WebSocket, TLS, idle connections, workers
	@$(BIN)/python bench/run.py --all --output bench/results/all $(ARGS)
	@$(BIN)/python bench/websocket.py
	@$(BIN)/python bench/tls.py
	@$(BIN)/python bench/idle.py
	@$(BIN)/python bench/workers.py

bench-peers: build # the servers to compare with, in build/peers
	@tools/setup.sh bench
	@PYTHONPATH=bench $(BIN)/python -m asbench.peers

lint: ## ruff, mypy, clang-format, clang-tidy, generated documents
	@tools/setup.sh test lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	tools/tidy.sh $(BIN)/clang-tidy $(BUILD)
	$(BIN)/python tools/gen_config_docs.py --check
	$(BIN)/python tools/gen_security_figures.py --check

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

tsan: ## what threads share, under the thread sanitizer: C tests, and tests of threads and late answers
	@tools/setup.sh test
	@VENV=$(TSAN) SHARE=$(VENV) MESON_ARGS="$(TSAN_BUILD)" tools/setup.sh
	@TSAN_OPTIONS="suppressions=$(CURDIR)/tools/tsan.supp" $(BIN)/meson test -C $(BUILD)-tsan \
		--no-rebuild --quiet --print-errorlogs --timeout-multiplier 3 $(TSAN_C_TESTS)
	@tools/tsan.sh $(TSAN) $(BUILD)-tsan $(if $(ARGS),$(ARGS),$(TSAN_TESTS))
TSAN = $(VENV)-tsan
TSAN_BUILD = $(MESON_ARGS) -Db_sanitize=thread -Db_lundef=false -Db_lto=false \
	-Dbuildtype=debugoptimized -Db_ndebug=false
TSAN_C_TESTS = $(addprefix test_,balance bridge late log_writer loop loops spool)
# Those that measure memory have no meaning there.
TSAN_TESTS = -q tests/e2e/test_threads.py tests/e2e/test_late.py -k 'not holds_its_thread_alone and not memory'

memcheck: ## valgrind on the C tests of parsers, buffers and the bridge
	@tools/setup.sh memcheck
	@$(BIN)/meson test -C $(BUILD) --no-rebuild --quiet --print-errorlogs --timeout-multiplier 10 \
		--wrap 'valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite' \
		$(MEMCHECK)
MEMCHECK = $(addprefix test_,bridge buf forwarded names network outq proxy_protocol response \
	spool target utf8 ws_handshake)

analyze: ## static analyzers of gcc and clang over csrc: make analyze [RINGS="base http net"]
	@tools/setup.sh analyze
	@JOBS=$(JOBS) $(BIN)/python tools/analyze.py $(BUILD) $(RINGS)

faults: ## each allocation fails in turn, and calls of the kernel do; results in build/results
	@tools/setup.sh test
	@mkdir -p build/results
	@$(BUILD)/tests/unit/test_no_memory build/results/no-memory-core.json $(SPARSE)
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS) tests/e2e/test_faults.py
SPARSE = 1

icount: ## instructions a request, against bench/icount.json: make icount [ARGS=--write]
	@tools/setup.sh
	@$(BIN)/python bench/icount.py $(ARGS)

fuzz: ## libFuzzer with the sanitizers on each target of fuzz/: make fuzz [TARGET=http1] [SECS=60]
	@tools/setup.sh fuzz
	@[ -f build/fuzz/build.ninja ] || CC=clang $(BIN)/meson setup build/fuzz $(FUZZ_BUILD)
	@$(BIN)/ninja -C build/fuzz --quiet $(patsubst fuzz/%.c,fuzz/%,$(wildcard fuzz/fuzz_*.c))
	@UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 nice $(BIN)/python tools/fuzz.py --build build/fuzz \
		--seconds $(SECS) $(TARGET)

fuzz-long: ## the same for a night, an hour for each target
	@$(MAKE) --no-print-directory fuzz SECS=3600

FUZZ_BUILD = -Dtests=true -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
	-Dbuildtype=debugoptimized

mutants: ## each refusal of csrc/http switched off in turn: the C tests must notice
	@tools/setup.sh mutants
	@$(BIN)/python tools/mutate.py --jobs $(JOBS)

cov: ## lines that all tests reach, against their goals; the details are in build/coverage
	@tools/setup.sh test cov
	@VENV=$(COV) SHARE=$(VENV) MESON_ARGS="$(COV_BUILD)" tools/setup.sh
	@find $(BUILD)-cov -name '*.gcda' -delete
	@rm -rf build/coverage
	@mkdir -p build/coverage/data
	@find $(BUILD)-cov build/coverage/data -type d -exec chmod a+rwx {} +
	@umask 0; $(COV)/bin/python -c 'import asgiserver._core'
	@failed=; \
	$(BIN)/meson test -C $(BUILD)-cov --no-rebuild --quiet --print-errorlogs || failed=1; \
	$(COV)/bin/python -m coverage run -m pytest -n $(JOBS) --dist worksteal $(ARGS) || failed=1; \
	$(BIN)/coverage combine --quiet && \
	$(BIN)/coverage html --quiet --directory build/coverage/python && \
	$(BIN)/coverage json --quiet -o build/coverage/python.json && \
	$(BIN)/gcovr --root . --filter csrc/ --object-directory $(BUILD)-cov --html-details build/coverage/c.html \
		--json build/coverage/c.json $(BUILD)-cov && \
	$(BIN)/python tools/coverage_report.py build/coverage/python.json build/coverage/c.json && [ -z "$$failed" ]
# Processes that give up their privileges write what they counted, too.
cov: export COVERAGE_FILE = $(CURDIR)/build/coverage/data/coverage
# What an optimizer merges and moves is of no line any more.
COV_BUILD = $(MESON_ARGS) -Db_coverage=true -Db_lto=false -Dbuildtype=debug -Db_ndebug=false

sdist: ## a source distribution of the last commit, in dist
	@tools/setup.sh
	@mkdir -p dist
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -c \
		'import sys; sys.path.insert(0, "tools"); import build_backend; build_backend.build_sdist("dist")'

wheel: build ## a wheel in dist, compiled by the profile of usual requests: up to a tenth faster
	@PYTHONPATH=bench $(BIN)/python tools/wheel.py

clean: ## remove the environments and everything that was built
	rm -rf $(VENV) $(VENV)-* build dist bench/floor bench/bare bench/ws_load bench/http_load .mypy_cache .ruff_cache .pytest_cache .coverage*

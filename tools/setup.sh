#!/bin/sh
# Makes what a make target needs and does only what is missing, so that every target begins with it:
# Debian's packages, the virtual environment, the Python packages, the editable install.
#
#   tools/setup.sh [GROUP…]     GROUP: a file of requirements/ beyond `build`; test, fuzz, browser, fronts,
#                               bench, memcheck and analyze need packages of Debian's too
#
# PYTHON      the interpreter (python3); another one than last time replaces the environment
# VENV        the environment (.venv); its build is build/venv
# SHARE       an environment whose packages this one uses too: only the install is its own
# MESON_ARGS  what else to tell `meson setup`, such as -Db_sanitize=address
set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
SHARE=${SHARE:-}
MESON_ARGS=${MESON_ARGS:-}
NAME=$(basename "$VENV")
BUILD=build/${NAME#.}
STAMPS=$VENV/stamps

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }
quietly() { # runs a command; shows what it printed only when it fails
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# --- Debian's packages ---------------------------------------------------------------------------

missing_packages() {
    command -v cc >/dev/null || echo gcc
    echo '#include <stdio.h>' | cc -E -x c -o /dev/null - 2>/dev/null || echo libc6-dev
    command -v pkg-config >/dev/null || echo pkg-config
    pkg-config --exists 'libuv >= 1.44' 2>/dev/null || echo libuv1-dev
    pkg-config --exists 'openssl >= 3.0' 2>/dev/null || echo libssl-dev
    if command -v "$PYTHON" >/dev/null; then
        missing_for_python
    elif [ "$PYTHON" = python3 ]; then
        echo python3 python3-venv python3-dev
    fi
    case " $* " in *" test "*) missing_for_test ;; esac
    case " $* " in *" browser "*) missing_for_browser ;; esac
    case " $* " in *" bench "*) missing_for_bench ;; esac
    case " $* " in *" fuzz "*) missing_for_fuzz ;; esac
    case " $* " in *" memcheck "*) command -v valgrind >/dev/null || echo valgrind libc6-dbg ;; esac
    case " $* " in *" analyze "*) command -v clang >/dev/null || echo clang ;; esac
    case " $* " in *" fronts "*) missing_for_fronts ;; esac
}

missing_for_fuzz() {
    if ! command -v clang >/dev/null; then
        echo clang libclang-rt-14-dev
    elif ! ls "$(clang -print-resource-dir)"/lib/*/libclang_rt.fuzzer* >/dev/null 2>&1; then
        echo "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
    fi
}

# Clients of the tests; and for those of deploy/, which only root can run: of network namespaces.
missing_for_test() {
    command -v curl >/dev/null || echo curl
    command -v openssl >/dev/null || echo openssl
    [ "$(id -u)" = 0 ] || return 0
    command -v ip >/dev/null || echo iproute2
    command -v nginx >/dev/null || echo nginx
    command -v haproxy >/dev/null || echo haproxy
}

# A load generator and what bjoern is compiled with.
missing_for_bench() {
    command -v wrk >/dev/null || echo wrk
    [ -e /usr/include/ev.h ] || echo libev-dev
}

# Some 400 MB, hence not for every test.
missing_for_browser() {
    command -v chromium >/dev/null || echo chromium fonts-dejavu-core
    command -v openssl >/dev/null || echo openssl
}

# The front ends of tests/support/fronts.py: PROGRAM PACKAGE. Some of them start when they are installed.
missing_for_fronts() {
    while read -r program package; do
        command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || echo "$package"
    done <<END
nginx nginx
haproxy haproxy
apache2 apache2
varnishd varnish
squid squid
lighttpd lighttpd
caddy caddy
nghttpx nghttp2-proxy
tinyproxy tinyproxy
traffic_server trafficserver
END
}

# What Debian splits off its own Python; any other Python has it all.
missing_for_python() {
    "$PYTHON" - <<'END'
import importlib.util, os.path, sys, sysconfig
debian = "python%d.%d" % sys.version_info[:2]
if not importlib.util.find_spec("ensurepip"):
    print(debian + "-venv")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print(debian + "-dev")
END
}

install_packages() {
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086 # a list of words
    set -- $missing
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null && as_root=sudo
        [ -n "$as_root" ] && [ ! -t 0 ] && as_root="sudo -n"
        [ -n "$as_root" ] || fail "missing packages, install them as root: apt install $*"
    fi
    command -v apt-get >/dev/null || fail "missing, install it your system's way (Debian's names): $*"
    say "installing from Debian: $*"
    apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"
    # shellcheck disable=SC2086
    {
        timeout --foreground 300 $apt update || say "apt-get update failed; going on with the lists that are there"
        quietly timeout --foreground 900 $apt install -y --no-install-recommends "$@"
    } || fail "cannot install: apt install $*"
}

# --- the virtual environment ---------------------------------------------------------------------

make_environment() {
    # What makes another environment necessary: another Python, another place.
    command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON"
    identity=$("$PYTHON" -c 'import sys; print(sys.version, sys.base_prefix)') || fail "$PYTHON fails"
    identity="$identity $PWD $SHARE"
    if [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMPS/python" 2>/dev/null)" = "$identity" ]; then
        return
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "asgiserver needs Python 3.11 or newer, this is $("$PYTHON" --version 2>&1):" \
            "say make PYTHON=/path/to/python3.12"
    say "making $VENV with $("$PYTHON" --version 2>&1)"
    rm -rf "$VENV" "$BUILD"
    # shellcheck disable=SC2086 # no word without $SHARE
    timeout --foreground 120 "$PYTHON" -m venv ${SHARE:+--without-pip} "$VENV"
    mkdir -p "$STAMPS"
    if [ -n "$SHARE" ]; then
        # A line in a .pth file adds a folder, but not what .pth files in that folder ask for: the
        # editable install of $SHARE stays out, and coverage's hook has to be repeated.
        packages='import sysconfig; print(sysconfig.get_path("purelib"))'
        {
            "$SHARE/bin/python" -c "$packages"
            echo 'import os; os.getenv("COVERAGE_PROCESS_CONFIG") and __import__("coverage").process_startup()'
        } >"$("$VENV/bin/python" -c "$packages")/shared.pth"
    fi
    printf '%s\n' "$identity" >"$STAMPS/python"
}

pip() {
    # The environment's own meson and ninja go first, also for the build backend.
    PATH="$PWD/$VENV/bin:$PATH" timeout --foreground 900 "$VENV/bin/python" -m pip --no-input \
        --disable-pip-version-check "$@"
}

# unless_done NAME FILES WORDS COMMAND…: runs the command unless it succeeded before with the same
# content of the files and the same words.
unless_done() {
    stamp=$STAMPS/$1
    # shellcheck disable=SC2086
    content=$(cat $2 | cksum; echo "$3")
    shift 3
    [ "$(cat "$stamp" 2>/dev/null)" = "$content" ] && return
    "$@"
    printf '%s\n' "$content" >"$stamp"
}

install_group() {
    say "installing Python packages: $1"
    quietly pip install --requirement "requirements/$1.txt" \
        --constraint requirements/constraints.txt || fail "cannot install requirements/$1.txt"
}

# --- the server itself ---------------------------------------------------------------------------

install_server() {
    say "building asgiserver in $BUILD"
    set -- "-Csetup-args=-Dtests=true"
    for argument in $MESON_ARGS; do
        set -- "$@" "-Csetup-args=$argument"
    done
    NINJA=$PWD/$VENV/bin/serial-ninja quietly pip install --no-deps --no-build-isolation \
        "-Cbuild-dir=$BUILD" "$@" --editable . || fail "the build failed (see above)"
}

# An editable install runs ninja whenever it is imported. Processes that start together would build
# the same files over each other; and a sanitizer that is preloaded for them is not meant for ninja.
# NO_REBUILD, for benchmarks: it is up to date.
write_serial_ninja() {
    cat >"$VENV/bin/serial-ninja.new" <<END
#!/bin/sh
[ -z "\$NO_REBUILD" ] || exit 0
unset LD_PRELOAD
exec flock . "$PWD/${SHARE:-$VENV}/bin/ninja" "\$@"
END
    chmod +x "$VENV/bin/serial-ninja.new"
    mv "$VENV/bin/serial-ninja.new" "$VENV/bin/serial-ninja"
}

# Two of them at once, in two terminals, would tread on each other's feet.
mkdir -p build
exec 9>build/setup.lock
timeout --foreground 1800 flock 9 || fail "another make is at work here"

install_packages "$@"
make_environment
if [ -z "$SHARE" ]; then
    for group in build "$@"; do
        [ -e "requirements/$group.txt" ] || continue
        files="requirements/constraints.txt requirements/$group.txt"
        unless_done "$group" "$files" "" install_group "$group"
    done
fi
# What ninja does not watch; of the rest it rebuilds what changed.
serial_ninja=$PWD/$VENV/bin/serial-ninja
write_serial_ninja
unless_done install "pyproject.toml meson.options tools/build_backend.py" "$MESON_ARGS" install_server
(cd "$BUILD" && quietly "$serial_ninja") || fail "the build failed (see above)"

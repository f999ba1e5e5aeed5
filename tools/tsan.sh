#!/bin/sh
# Tests with the module of a build with ThreadSanitizer: tools/tsan.sh VENV BUILD WORDS… (of pytest)
#
# CPython is not built with it, so only what the module does itself is seen; what its threads share by
# CPython's lock is told to it by tools/tsan.supp. Reports go to BUILD/tsan, and fail the run.
set -eu
venv=$PWD/$1 build=$PWD/$2
shift 2
# The editable install would have ninja run under the sanitizer: the package is put together instead.
package=$build/package
rm -rf "$package" "$build/tsan"
mkdir -p "$package" "$build/tsan"
cp -r asgiserver "$package/"
cp "$build"/csrc/_core*.so "$package/asgiserver/"
status=0
# -R: the sanitizer's shadow needs its addresses free, which randomization may take.
setarch -R env \
    LD_PRELOAD="$(cc -print-file-name=libtsan.so)" \
    MESONPY_EDITABLE_SKIP="$build" PYTHONPATH="$package" PYTHONMALLOC=malloc \
    TSAN_OPTIONS="suppressions=$PWD/tools/tsan.supp exitcode=0 report_signal_unsafe=0 log_path=$build/tsan/report" \
    "$venv/bin/python" -P -m pytest -p no:cacheprovider "$@" || status=$?
if [ -n "$(ls "$build/tsan")" ]; then
    cat "$build"/tsan/report*
    status=1
fi
exit $status

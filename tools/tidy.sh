#!/bin/sh
# clang-tidy over csrc/: tools/tidy.sh CLANG_TIDY BUILD
set -eu
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
# gcc's own flags, which clang does not know; and to clang a parameter named environ shadows unistd.h's.
sed -E 's/ -(Wshadow|flto[^ "]*|fcf-protection[^ "]*|fstack-clash-protection|ffat-lto-objects)//g' \
    "$2/compile_commands.json" >"$database/compile_commands.json"
find csrc -name '*.c' -print0 |
    xargs -0 -n 1 -P "$(nproc)" timeout 120 "$1" --quiet -p "$database"

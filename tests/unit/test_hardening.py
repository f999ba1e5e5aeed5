"""What the linker and the compiler put into a release's module against those who find a hole in it.

Read from the module that is tested. Builds with sanitizers or coverage are no releases.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest


def module() -> str:
    path = importlib.import_module("asgiserver._core").__file__
    assert path is not None
    return path


@cache
def run(*words: str) -> str:
    return subprocess.run(
        [*words, module()], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    ).stdout


def exported() -> set[str]:
    return set(run("nm", "-D", "--defined-only", "--format=just-symbols").split())


def imported() -> set[str]:
    names = run("nm", "-D", "--undefined-only", "--format=just-symbols").split()
    return {name.partition("@")[0] for name in names}


@pytest.fixture(autouse=True)
def of_a_release() -> None:
    if re.search(r"__(asan|tsan|ubsan|gcov)_|llvm_gcov", " ".join(imported() | exported())):
        pytest.skip("this build has a sanitizer or measures coverage")


def test_one_name_is_exported() -> None:
    assert exported() == {"PyInit__core"}


def test_the_dynamic_section_is_read_only() -> None:
    assert "GNU_RELRO" in run("readelf", "--program-headers", "--wide")
    assert "BIND_NOW" in run("readelf", "--dynamic", "--wide")


def test_nothing_is_writable_and_executable() -> None:
    headers = run("readelf", "--program-headers", "--wide")
    segments = re.findall(r"^ +(\w+) +(?:0x\w+ +){5}([RWE ]{3})", headers, re.MULTILINE)
    assert ("GNU_STACK", "RW ") in segments
    assert not [name for name, flags in segments if "W" in flags and "E" in flags]
    assert "TEXTREL" not in run("readelf", "--dynamic", "--wide")


def test_stacks_are_protected() -> None:
    assert "__stack_chk_fail" in imported()


def test_sizes_are_checked() -> None:
    """_FORTIFY_SOURCE: calls that write into an object of a known size know it."""
    assert "__snprintf_chk" in imported()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction is x86-64's")
def test_jumps_are_checked() -> None:
    """-fcf-protection: every function that is called by a pointer begins with endbr64. The note that
    says so for the file depends on the system's crti.o."""
    code = run("objdump", "--disassemble=PyInit__core", "--no-show-raw-insn")
    body = code.partition("<PyInit__core>:\n")[2]
    assert body.split()[1] == "endbr64"


def test_there_is_no_search_path() -> None:
    assert not re.search("RPATH|RUNPATH", run("readelf", "--dynamic", "--wide"))


def test_the_build_says_so() -> None:
    """What leaves no trace in the file that is sure: how the module's parts were compiled."""
    build = Path(module()).resolve().parent.parent
    commands = [
        entry["command"]
        for entry in json.loads((build / "compile_commands.json").read_text())
        if re.search("/(csrc|llhttp)/", os.path.normpath(build / entry["file"]))
    ]
    assert len(commands) > 40
    for words in ("-D_FORTIFY_SOURCE=3", "-fstack-protector-strong", "-fstack-clash-protection"):
        assert all(words in command for command in commands), words

"""Whether the tests notice when a rule is missing: each refusal of csrc/http is switched off in turn,
and the C tests must fail.

A copy of the tree, in which every refusal asks whether it is the one that is off, is built once.
Which one it is, a test reads from its environment (tools/mutant.h). A test is run for a mutant only
if that rule says something in it. A refusal is found by its form, with a parser of C:

    if (a || b) { return AS_E_X; }       a is off; b is off
    return a && b ? AS_OK : AS_E_X;      a holds whatever comes; b does
    return a && b;                       the same, in a function that judges
    case A:                              A is not among the cases, in the functions of SWITCHES

    python tools/mutate.py [--jobs N] [--only WORD] [--list]

Survivors are printed, and the counts are in build/results/mutation.json. A mutant that nobody can
notice is named, with the reason, in tests/mutants.toml. The exit status is 1 if another one
survived, or if that list is out of date.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tree_sitter_c
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "mutants"
TREE, BUILD = WORK / "tree", WORK / "build"
RESULT = ROOT / "build" / "results" / "mutation.json"
EQUIVALENT = ROOT / "tests" / "mutants.toml"
COPIED = (
    "asgiserver",
    "bench",
    "csrc",
    "fuzz",
    "meson.build",
    "meson.options",
    "subprojects",
    "tests/support/faults.c",
    "tests/unit",
    "tools",
)

# Where the rules are.
FILES = tuple(
    f"csrc/http/{name}"
    for name in (
        "exchange_rules.c",
        "exchange_rules.h",
        "forwarded.c",
        "h1_head.c",
        "h1_response.c",
        "http1.c",
        "proxy_protocol.c",
        "response.c",
        "target.c",
        "websocket.c",
        "ws_deflate.c",
        "ws_handshake.c",
    )
)
# Tests of other things, which take their time.
NOT_RUN = {
    f"test_{name}"
    for name in (
        "balance",
        "bridge",
        "log_writer",
        "loop",
        "loops",
        "no_memory",
        "timeout",
        "tls",
        "utf8",
    )
}

# What refuses; memory that is not there is no rule.
REFUSAL = re.compile(
    r"AS_E_(?!NOMEM\b)|\bfail\(|\bwalk_forget\(|\brefuse_plainly\(|\bclose_gently\(|->(bad|unknown_coding) = true"
)
# Functions of type bool that do not judge what came.
NO_JUDGES = {
    "as_ws_next_protocol",
    "as_ws_deflates",
    "as_h1_wants_read",
    "as_list_next",
    "clear_for_refusal",
    "is_blocked",
    "is_stopped",
    "may_start_with",
    "must_close",
    "read_control",
    "read_data",
    "read_header",
    "read_nothing",
    "reason_is",
    "waits_for_reader",
}
# Those in which true is the refusal.
JUDGES_BY_TRUE = {"has_body", "as__h1_leaves_too_much"}
# Functions whose switches are lists of what is treated apart.
SWITCHES = {"as_is_forbidden_trailer", "find", "understand"}


@dataclass
class Mutant:
    function: str
    line: int
    text: str
    edit: str  # "off", "on" or "case"
    start: int  # of what is edited
    end: int
    file: str = ""
    number: int = 0
    killed_by: str | None = None
    reached: bool = False  # a test comes by, and the rule says something
    equivalent: str | None = None  # why nothing can be noticed

    @classmethod
    def of(cls, function: str, node: Node, edit: str, place: Node) -> Mutant:
        line = node.start_point[0] + 1
        return cls(function, line, text_of(node), edit, place.start_byte, place.end_byte)

    @property
    def name(self) -> tuple[str, str, str]:
        return self.file, self.function, self.text

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.function}: {self.edit}: {self.text}"


# --- finding -------------------------------------------------------------------------------------


def text_of(node: Node) -> str:
    assert node.text is not None
    return re.sub(r"\s+", " ", node.text.decode())


def descendants(node: Node, *, into: Iterable[str] | None = None) -> Iterator[Node]:
    """Everything below ``node``; with ``into``, below nodes of these types alone."""
    for child in node.named_children:
        yield child
        if into is None or child.type in into:
            yield from descendants(child, into=into)


def child(node: Node, name: str) -> Node:
    found = node.child_by_field_name(name)
    assert found is not None, f"{node.type} without {name}"
    return found


def is_refusal(text: str) -> bool:
    return REFUSAL.search(text) is not None and "AS_E_NOMEM" not in text


def fails(way: Node) -> bool:
    """An error comes of it in any case."""
    if way.type == "conditional_expression":
        return fails(child(way, "consequence")) and fails(child(way, "alternative"))
    return REFUSAL.search(text_of(way)) is not None or text_of(way) == "AS_E_NOMEM"


def refuses(node: Node | None, is_judge: bool) -> bool:
    """A statement that refuses at once, not under a further condition."""
    if node is None:
        return False
    if node.type == "else_clause":
        node = node.named_children[0]
    if node.type == "if_statement":
        return False
    for one in [node, *descendants(node, into={"compound_statement"})]:
        if one.type in ("return_statement", "expression_statement") and not any(
            part.type == "conditional_expression" for part in descendants(one)
        ):
            text = text_of(one)
            if is_refusal(text) or (is_judge and text == "return false;"):
                return True
    return False


class Function:
    """The mutants of one function."""

    def __init__(self, node: Node) -> None:
        self.body = child(node, "body")
        declarator = child(node, "declarator")
        while declarator.type != "identifier":
            declarator = child(declarator, "declarator")
        self.name = text_of(declarator)
        is_bool = text_of(child(node, "type")) == "bool"
        self.is_judge = is_bool and self.name not in NO_JUDGES
        self.by_true = self.name in JUDGES_BY_TRUE
        self.found: dict[tuple[int, int], Mutant] = {}
        self.values = {
            text_of(child(one, "declarator")): child(one, "value")
            for one in descendants(self.body)
            if one.type == "init_declarator" and child(one, "declarator").type == "identifier"
        }

    def mutants(self) -> list[Mutant]:
        for node in descendants(self.body):
            if node.type == "if_statement":
                self.of_if(node)
            elif node.type == "conditional_expression":
                self.of_choice(node)
            elif node.type == "return_statement" and self.is_judge and node.named_children:
                self.of_verdict(node.named_children[0])
            elif node.type == "assignment_expression" and text_of(child(node, "left")).endswith(
                "->bad"
            ):
                self.off(child(node, "right"))
            elif node.type == "case_statement" and self.name in SWITCHES:
                self.of_case(node)
        return [self.found[key] for key in sorted(self.found)]

    def of_if(self, node: Node) -> None:
        condition = child(node, "condition").named_children[0]
        if refuses(child(node, "consequence"), self.is_judge and not self.by_true):
            self.off(condition)
        if refuses(node.child_by_field_name("alternative"), self.is_judge and not self.by_true):
            self.on(condition)

    def of_choice(self, node: Node) -> None:
        ways = child(node, "consequence"), child(node, "alternative")
        failing = [way for way in ways if fails(way)]
        if len(failing) != 1 or text_of(failing[0]) == "AS_E_NOMEM":
            return
        if any("AS_E_" in text_of(way) for way in ways if way not in failing):
            return  # a choice that is looked at by itself
        if failing[0] == ways[0]:
            self.off(child(node, "condition"))
        else:
            self.on(child(node, "condition"))

    def of_verdict(self, value: Node) -> None:
        if value.type in ("true", "false", "conditional_expression"):
            return
        if self.by_true:
            self.off(value)
        else:
            self.on(value)

    def of_case(self, node: Node) -> None:
        value, switch = node.child_by_field_name("value"), node.parent
        while switch is not None and switch.type != "switch_statement":
            switch = switch.parent
        if value is not None and switch is not None:
            condition = child(switch, "condition").named_children[0]
            self.found[value.start_byte, value.end_byte] = Mutant.of(
                self.name, value, "case", condition
            )

    def add(self, node: Node, edit: str) -> None:
        if node.type not in ("true", "false"):
            self.found[node.start_byte, node.end_byte] = Mutant.of(self.name, node, edit, node)

    def off(self, node: Node) -> None:
        """Each way in which the condition can hold, by itself."""
        self.split(node, "||", "&&", "off")

    def on(self, node: Node) -> None:
        """Each way in which the condition can fail, by itself."""
        self.split(node, "&&", "||", "on")

    def split(self, node: Node, splits: str, joins: str, edit: str) -> None:
        node = self.resolve(node)
        operator = text_of(child(node, "operator")) if node.type == "binary_expression" else ""
        sides = [child(node, "left"), child(node, "right")] if operator in ("&&", "||") else []
        if operator == splits:
            for side in sides:
                self.split(side, splits, joins, edit)
            return
        # Of `a && (b || c)`, b and c can be off by themselves too.
        inner = [side for side in sides if self.is_made_of(side, splits)]
        for side in inner:
            self.split(side, splits, joins, edit)
        if operator == joins and edit == "on":
            for side in sides:
                self.split(side, splits, joins, edit)
        elif not inner:
            self.add(node, edit)

    def resolve(self, node: Node) -> Node:
        """Without parentheses; the value of a variable that was computed for this."""
        while node.type == "parenthesized_expression":
            node = node.named_children[0]
        value = self.values.get(text_of(node)) if node.type == "identifier" else None
        return value if value is not None and value.type == "binary_expression" else node

    def is_made_of(self, node: Node, operator: str) -> bool:
        node = self.resolve(node)
        return node.type == "binary_expression" and text_of(child(node, "operator")) == operator


def find(file: str) -> Iterator[Mutant]:
    tree = Parser(Language(tree_sitter_c.language())).parse((ROOT / file).read_bytes())
    for node in descendants(tree.root_node, into={"preproc_ifdef", "preproc_if"}):
        if node.type == "function_definition":
            for one in Function(node).mutants():
                one.file = file
                yield one


def find_all() -> list[Mutant]:
    mutants = [one for file in FILES for one in find(file)]
    for number, one in enumerate(mutants, 1):
        one.number = number
    return mutants


# --- building ------------------------------------------------------------------------------------


def edited(source: bytes, mutants: list[Mutant]) -> bytes:
    """With a question around each place. What stands around another one begins before it and ends behind it."""
    inserts: list[tuple[int, int, bytes]] = []  # where, in which order there, what
    switches: dict[tuple[int, int], list[str]] = defaultdict(list)
    for one in mutants:
        if one.edit == "case":
            switches[one.start, one.end].append(f"{{{one.number}, {one.text}}}")
        else:
            size = one.end - one.start
            inserts.append(
                (one.start, -size, b"as__mutant_%s(%d, (" % (one.edit.encode(), one.number))
            )
            inserts.append((one.end, size - len(source), b"))"))
    for (start, end), rows in switches.items():
        inserts.append((start, 0, b"as__mutant_case((int)("))
        table = f"), (const as__case[]){{{', '.join(rows)}}}, {len(rows)})"
        inserts.append((end, 0, table.encode()))
    pieces, at = [], 0
    for where, _, text in sorted(inserts):
        pieces += [source[at:where], text]
        at = where
    return b"".join([*pieces, source[at:]])


def write_if_changed(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def copy_tree(mutants: list[Mutant]) -> None:
    by_file = defaultdict(list)
    for one in mutants:
        by_file[one.file].append(one)
    kept = set()
    for name in COPIED:
        top = ROOT / name
        for path in [top] if top.is_file() else top.rglob("*"):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            relative = path.relative_to(ROOT)
            kept.add(TREE / relative)
            content = path.read_bytes()
            write_if_changed(TREE / relative, edited(content, by_file[str(relative)]))
    for path in TREE.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def command(*words: str | Path) -> str:
    done = subprocess.run(
        words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{words[0]} failed")
    return done.stdout


def build(mutants: list[Mutant]) -> dict[str, Path]:
    """The tests, by name."""
    copy_tree(mutants)
    here = Path(sys.executable).parent
    if not (BUILD / "build.ninja").exists():
        command(
            *(
                here / "meson",
                "setup",
                BUILD,
                TREE,
                "-Dtests=true",
                "-Dbuildtype=release",
                "-Db_ndebug=false",
            ),
            f"-Dc_args=-include{TREE / 'tools' / 'mutant.h'}",
        )
    command(here / "ninja", "-C", BUILD, "build.ninja")  # whose tests may be others now
    listed = json.loads(command(here / "meson", "introspect", "--tests", BUILD))
    tests = {test["name"]: Path(test["cmd"][0]) for test in listed if test["name"] not in NOT_RUN}
    tests = {name: path for name, path in tests.items() if path.is_relative_to(BUILD / "tests")}
    command(here / "ninja", "-C", BUILD, *(str(path.relative_to(BUILD)) for path in tests.values()))
    return tests


# --- running -------------------------------------------------------------------------------------


MEMORY = 1 << 30  # bytes; without a limit, some mutants take all there is


def limit_memory() -> None:
    """Of the processes that are started from now on."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@dataclass
class Test:
    name: str
    path: Path
    seconds: float = 0.0
    reaches: set[int] = field(default_factory=set)

    def passes(self, timeout: float, **environment: str) -> bool:
        process = subprocess.Popen(
            [self.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        try:
            return process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            process.kill()
            process.wait()

    def measure(self) -> None:
        """Without a mutant: it must pass, and tells which rules say something in it."""
        seen = WORK / f"{self.name}.seen"
        seen.unlink(missing_ok=True)
        began = time.monotonic()
        if not self.passes(600, AS_MUTANT_SEEN=str(seen)):
            sys.exit(f"{self.name} fails with every rule in place")
        self.seconds = time.monotonic() - began
        if seen.exists():
            self.reaches = set(map(int, seen.read_text().split()))


def attack(one: Mutant, tests: list[Test]) -> None:
    for test in tests:
        if one.number in test.reaches:
            one.reached = True
            if not test.passes(20 + 10 * test.seconds, AS_MUTANT=str(one.number)):
                one.killed_by = test.name
                return


def excuse(mutants: list[Mutant]) -> list[str]:
    """Names the reasons; what is wrong with the list of them."""
    rows: list[dict[str, Any]] = tomllib.loads(EQUIVALENT.read_text("utf-8")).get("equivalent", [])
    complaints = []
    for row in rows:
        named = [one for one in mutants if one.name == (row["file"], row["function"], row["text"])]
        if not named:
            complaints.append(f"{EQUIVALENT.name}: there is no {row}")
        for one in named:
            one.equivalent = row["why"]
    return complaints


# --- telling -------------------------------------------------------------------------------------


def table(mutants: list[Mutant]) -> list[dict[str, Any]]:
    rows = []
    for file in FILES:
        here = [one for one in mutants if one.file == file]
        rows.append(
            {
                "file": file,
                "mutants": len(here),
                "killed": sum(one.killed_by is not None for one in here),
                "equivalent": sum(
                    one.killed_by is None and one.equivalent is not None for one in here
                ),
                "survived": sum(one.killed_by is None and one.equivalent is None for one in here),
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    keys = ("mutants", "killed", "equivalent", "survived")
    print(f"{'':32}" + "".join(f"{key:>12}" for key in keys))
    for row in [*rows, {"file": "all", **{key: sum(row[key] for row in rows) for key in keys}}]:
        print(f"{row['file']:32}" + "".join(f"{row[key]:12}" for key in keys))


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Switches each refusal off in turn; the C tests must notice."
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="mutants whose line of the list has this word")
    parser.add_argument("--list", action="store_true", help="print the mutants, and do nothing")
    arguments = parser.parse_args()
    mutants = find_all()
    chosen = [one for one in mutants if arguments.only in str(one)]
    if arguments.list:
        print(*chosen, sep="\n")
        return 0
    complaints = excuse(mutants)
    tests = [Test(name, path) for name, path in build(mutants).items()]
    limit_memory()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(Test.measure, tests))
        tests.sort(key=lambda test: test.seconds)
        list(pool.map(lambda one: attack(one, tests), chosen))
    for one in chosen:
        if one.killed_by is not None and one.equivalent is not None:
            complaints.append(f"{EQUIVALENT.name}: {one.killed_by} notices {one}")
        elif one.killed_by is None and one.equivalent is None:
            complaints.append(f"{one}   ({'survived' if one.reached else 'never refuses'})")
    rows = table(chosen)
    if not arguments.only:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    show(rows)
    print(*complaints, sep="\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())

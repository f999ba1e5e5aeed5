"""The table of options, and what is made from it."""

import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import asgiserver
from asgiserver import options
from asgiserver.cli import main as command
from asgiserver.config import Config
from asgiserver.options import OPTIONS, Option

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "asgiserver" / "options.py"


def by_name(name: str) -> Option:
    return options.BY_NAME[name]


def test_rows_are_sound() -> None:
    names = [row.name for row in OPTIONS]
    assert len(set(names)) == len(names)
    assert len({row.word for row in OPTIONS}) == len(names)
    for row in OPTIONS:
        assert row.group in options.GROUPS
        assert row.help[-1] == "."
        assert options.check(row, row.default) == row.default, row.name


def test_config_has_the_tables_names_defaults_and_types() -> None:
    fields = {field.name: field for field in dataclasses.fields(Config) if field.name != "app"}
    assert list(fields) == [row.name for row in OPTIONS]
    hints = typing.get_type_hints(Config)
    kinds = {"str": str, "int": int, "float": float, "bool": bool, "mode": int}
    for row in OPTIONS:
        assert fields[row.name].default == row.default
        if row.kind in kinds:
            optional = row.default is None
            expected = kinds[row.kind] | None if optional else kinds[row.kind]
            if row.words:
                expected |= typing.Literal[row.words]
            assert row.name == "log_config" or hints[row.name] == expected, row.name


def test_command_line_has_a_word_and_a_variable_for_each_row() -> None:
    parameters = {parameter.name: parameter for parameter in command.params}
    for row in OPTIONS:
        assert f"--{row.word}" in parameters[row.name].opts
        variables = [row.env, row.fallback] if row.fallback else row.env
        assert parameters[row.name].envvar == variables
    assert by_name("headers").env == "ASGISERVER_HEADER"


def test_limits_header_is_made_from_the_file_alone() -> None:
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('table', sys.argv[1])\n"
        "table = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(table)\n"
        "print(table.limits_header(), end='')\n"
    )
    # -S: without any installed package; -I: without this folder.
    made = subprocess.run(
        [sys.executable, "-IS", "-c", code, str(TABLE)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert made.stdout == options.limits_header()


def test_limits_header_defines_every_row_that_the_core_reads() -> None:
    text = options.limits_header()
    rows = re.findall(r"X\((\w+), (\w+), (\d+)\)", text)
    assert [name for _, name, _ in rows] == [row.name for row in options.core_rows()]
    values = {name: (c_type, int(value)) for c_type, name, value in rows}
    assert values["timeout_keep_alive"] == ("uint32_t", 5000)
    assert values["limit_request_body"] == ("uint64_t", 1 << 30)
    assert values["server_header"] == ("bool", 1)
    assert text.startswith("/*")
    assert "#define AS_LIMITS(X) \\\n" in text
    assert text.endswith(")\n")


def test_every_value_that_a_row_allows_fits_its_c_type() -> None:
    largest = {"uint32_t": (1 << 32) - 1, "uint64_t": (1 << 64) - 1}
    for row in options.core_rows():
        if row.c_type != "bool":
            assert row.maximum is not None
            assert options.core_value(row, row.maximum) <= largest[row.c_type]


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(0.0, 0), (0.001, 1), (0.0011, 2), (2.3, 2300), (1.1, 1100)]
)
def test_times_in_milliseconds(seconds: float, milliseconds: int) -> None:
    row = by_name("timeout_write")
    assert options.core_value(row, options.check(row, seconds)) == milliseconds


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("port", 65536, "port: 65536 is more than 65535"),
        ("port", -1, "port: -1 is less than 0"),
        ("timeout_write", 0.0001, "timeout_write: 0.0001 is less than 0.001"),
        ("timeout_write", float("nan"), "timeout_write: not a number"),
        ("timeout_write", float("inf"), "timeout_write: inf is more than 86400"),
        ("uds_mode", 0o1000, "uds_mode: 1000 is more than 777"),
        ("lifespan", "maybe", "lifespan: 'maybe' is not one of auto, on, off"),
    ],
)
def test_values_out_of_range(name: str, value: object, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        options.check(by_name(name), value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "80"), ("port", True), ("port", None), ("host", None), ("factory", 1), ("fd", 1.0)],
)
def test_values_of_a_wrong_type(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name}: "):
        options.check(by_name(name), value)


def test_whole_numbers_are_times_too() -> None:
    value = options.check(by_name("timeout_write"), 3)
    assert value == 3
    assert isinstance(value, float)


def test_run_takes_what_config_takes() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'prot'"):
        asgiserver.run("main:app", prot=1)
    assert list(inspect.signature(asgiserver.run).parameters)[:1] == ["app"]


def test_config_page_is_up_to_date() -> None:
    tool = ROOT / "tools" / "gen_config_docs.py"
    checked = subprocess.run(
        [sys.executable, str(tool), "--check"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("access_log", True, "on"),
        ("access_log", False, "off"),
        ("umask", 0o27, "27"),
        ("reload_dir", ("a", "b"), "a,b"),
        ("timeout_write", 2.5, "2.5"),
        ("port", 80, "80"),
    ],
)
def test_values_as_they_are_written(name: str, value: object, text: str) -> None:
    assert by_name(name).text(value) == text


def test_an_empty_word() -> None:
    with pytest.raises(ValueError, match=r"^reload_dir: a value is empty$"):
        options.check(by_name("reload_dir"), [""])

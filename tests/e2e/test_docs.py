"""The examples of docs/embedding.md do what the page says: each is run as its reader would run it."""

from __future__ import annotations

import ast
import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.client import SLOWNESS
from support.server import child_environment

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"
SECONDS = 100 * SLOWNESS  # until it hangs; a whole pytest begins in one of them

BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
FILES = {found.group(1): block for block in BLOCKS if (found := re.match(r"# (\w+\.py)\n", block))}
SCRIPTS = [block for block in BLOCKS if block not in FILES.values()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def is_cell(code: str) -> bool:
    """It awaits where only a notebook lets it."""
    try:
        compile(code, "cell", "exec")
    except SyntaxError:
        return True
    return False


def test_the_page_has_an_example_of_each() -> None:
    text = "".join(SCRIPTS)
    for word in ("asgiserver.run(", "async with Server(", ".serve()", "signals=True", ".startup()"):
        assert word in text
    for word in ("\nwith Server(", "sockets=[sock]", "asgiserver.uvicorn", "Config("):
        assert word in text
    assert set(FILES) == {"app.py", "test_app.py"}
    assert sum(map(is_cell, SCRIPTS)) == 1


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=str(n)) for n, code in enumerate(SCRIPTS) if not is_cell(code)]
)
def test_a_script(code: str, project: Path) -> None:
    """One that serves at port 8000 does so until it is stopped, and goes on then."""
    (project / "main.py").write_text(code.replace("port=8000", "port=0"))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "main.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=project,
        env=child_environment({"PYTHONPATH": str(project)}),
        text=True,
    )
    try:
        output = ""
        if "port=8000" in code:
            assert process.stdout is not None
            for line in process.stdout:
                output += line
                if "CTRL+C" in line:
                    break
            process.send_signal(signal.SIGTERM)
        output += process.communicate(timeout=SECONDS)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "Stopped" in output
    if 'print("stopped")' in code:
        assert output.endswith("stopped\n")
    if "print((" in code or "print(answer" in code:
        assert "hello" in output


def test_the_notebook(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    (cell,) = filter(is_cell, SCRIPTS)
    *before, last = ast.parse(cell, "cell").body
    assert isinstance(last, ast.Expr)
    names: dict[str, object] = {}

    async def notebook() -> object:
        for part, mode in ((ast.Module(before, []), "exec"), (ast.Expression(last.value), "eval")):
            code = compile(part, "cell", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            shown = eval(code, names)
            if asyncio.iscoroutine(shown):
                shown = await shown
        await names["server"].shutdown()  # type: ignore[attr-defined]
        return shown

    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", str(asyncio.run(notebook())))
    finally:
        sys.modules.pop("app", None)


def test_the_tests(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"],
        capture_output=True,
        check=False,
        cwd=project,
        env=child_environment({"PYTHONPATH": str(project), "PYTEST_ADDOPTS": ""}),
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout

"""Writes docs/config.md from the option table; with ``--check`` only tells whether it is up to date."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "asgiserver" / "options.py"
PAGE = ROOT / "docs" / "config.md"

HEAD = """\
# Settings

<!-- Made from asgiserver/options.py by tools/gen_config_docs.py: change it there. -->

Each setting has one name in four spellings:

| where | spelling | example |
|---|---|---|
| command line | `--limit-request-body BYTES` | `asgiserver --limit-request-body 1000000 main:app` |
| environment | `ASGISERVER_LIMIT_REQUEST_BODY` | `ASGISERVER_LIMIT_REQUEST_BODY=1000000 asgiserver main:app` |
| file | `limit_request_body`, or with `-` | `limit-request-body = 1_000_000` |
| Python | `limit_request_body` | `asgiserver.run("main:app", limit_request_body=1000000)` |

The command line wins over the environment, the environment over the file, and the file over the default.
`WEB_CONCURRENCY` and `FORWARDED_ALLOW_IPS`, which other servers read too, come after the file. Where to listen
is one setting: `--port` on the command line takes the place of a `uds` in the file. `asgiserver.run` and `Config`
take what they are given, and read neither file nor environment.

Switches are `--access-log` and `--no-access-log` on the command line, `on` or `off` in the environment, `true` or
`false` in a file. `ASGISERVER_APP`, and `app` in a file, name the application. A value outside of its range, an
unknown key, or two settings that do not go together are an error at start, never a guess.

`asgiserver --print-config` shows every setting and where it comes from, as a file that can be read again.
`asgiserver --check-config` checks everything and imports the application, without listening, and says OK.

## The file

`--config FILE`, `-c FILE` or `ASGISERVER_CONFIG` name a file in TOML. Without one, the table `[tool.asgiserver]` is
read from the `pyproject.toml` of the current folder or, where that has none, of `--app-dir`.

```toml
app = "package.module:app"
bind = ["0.0.0.0:8000", "unix:/run/app.sock"]
workers = "auto"
uds_mode = 0o660              # or "660"
timeout_keep_alive = 15
log_config = "logging.yaml"   # or a table, as logging.config.dictConfig takes it

[headers]                     # or headers = ["X-Served-By: one"]
X-Served-By = "one"
```

Paths are relative to the current folder, as on the command line. SIGHUP reads the file again; a bad one is
reported and changes nothing. `ssl_keyfile_password` is better kept in the environment;
`--print-config` does not show it.

## Reloading

`--reload` needs watchfiles (`pip install watchfiles`). It watches `*.py` in the current folder and in `--app-dir`, or
in each `--reload-dir`; `--reload-include '*.html'` watches more. Patterns are those of the shell, matched against the
last parts of a path: `static`, `docs/*.md`. What excludes a folder excludes what is in it. Hidden files and
folders (`.git`, `.venv`), `__pycache__`, `node_modules`, `site-packages`, `dist`, `build/lib*` and editors' temporary
files are left out, unless `--reload-include` has the very pattern. In a file `reload_dir` and the like may stand by
themselves and wait for `--reload` on the command line; there, without it, they are an error.
"""

TAIL = """\
## Addresses

A name such as `localhost` is bound on every address that it has. `--host ::` listens on all addresses
of IPv6 and of IPv4, each family with a socket of its own. With `--port 0` the kernel chooses the port;
the banner shows it. `--fd` takes a socket that another program has made: systemd's first one is
`--fd 3`. The file of a Unix socket is removed at the end; one that a dead server left behind is
replaced; any other file at that path is an error.

Addresses are bound before the application is imported, so that a port in use is found at once. They
listen only when the application's start-up is complete: until then clients are refused, not kept
waiting.

## Stopping, exit status

SIGINT (CTRL+C) and SIGTERM stop the server: it accepts no more connections, closes idle ones, and lets
running requests end within `--timeout-graceful-shutdown`; what is left then is cut. A second signal cuts
at once. In both cases the application's lifespan shutdown runs. A third signal ends the process.

| status | meaning |
|---|---|
| 0 | stopped, by a signal or by the program |
| 1 | could not start: address, import, a file that cannot be read |
| 2 | wrong option or setting |
| 3 | the application's start-up (lifespan) failed |
| 130, 143 | SIGINT or SIGTERM came while the server was still starting |

## Logging

Errors and notices go to the standard error output, or to `--log-file` with the time and the process in
front, through the logger `asgiserver.error`. Access lines go to the standard output or to
`--access-log-file`. `--log-level` is about messages; at `warning` and above it turns off the access log
too, unless that has a file. `--log-level trace` logs every ASGI message on `asgiserver.asgi`.

SIGUSR1 opens the files again by their names, for logrotate. Files are opened for appending: several
processes may share one, and no line is torn.

`--access-log-format` is `uvicorn`, `common` (NCSA), `combined`, `json` (an object a line: `time`, `client`,
`method`, `path`, `query`, `version`, `status`, `bytes`, `duration_us`, `referer`, `user_agent`), or a text
with gunicorn's atoms; `%%` is a percent sign:

| atom | what it is |
|---|---|
| `%(h)s` | address of the client; `-` on a Unix socket |
| `%(l)s` | `-` |
| `%(u)s` | user of Basic credentials |
| `%(t)s` | local time when the response was complete: `[28/Feb/2026:23:59:59 +0000]` |
| `%(r)s` | request line |
| `%(m)s`, `%(U)s`, `%(q)s`, `%(H)s` | method, path as received, query string, protocol |
| `%(s)s` | status |
| `%(B)s`, `%(b)s` | bytes of the response body; `%(b)s` is `-` for none |
| `%(f)s`, `%(a)s` | Referer, User-Agent |
| `%(T)s`, `%(M)s`, `%(D)s` | duration in seconds, milliseconds, microseconds |
| `%(L)s` | duration in seconds, with six decimals |
| `%(p)s` | process, as `<123>` |
| `%({name}i)s`, `%({name}o)s` | a header of the request; of the response, as it was sent |
| `%({NAME}e)s` | a variable of WSGI's environ, of those named below |

The duration counts from the complete head of the request to the end of the response. Of the variables there
are `HTTP_…`, `CONTENT_TYPE`, `CONTENT_LENGTH`, `REMOTE_ADDR`, `REMOTE_PORT`, `REQUEST_METHOD`, `REQUEST_URI`,
`RAW_URI`, `QUERY_STRING` and `SERVER_PROTOCOL`.

What is not there is `-`; an unknown atom is an error at start. Bytes from strangers that are not printable
ASCII, quotes and backslashes are written as `\\xNN`; JSON has `\\u00NN` for them, which reads them as Latin-1.

The core writes access lines itself, from a thread of its own: a full disk, a pipe that nobody reads or a
terminal after CTRL+S never holds up a request. About 1 MiB waits; lines beyond that are lost, and a warning
says how many. With `--log-config`, or a handler or filter on the logger `asgiserver.access`, and no
`--access-log-file`, they are log records instead, whose arguments are client, method, target, HTTP version
and status, as uvicorn's are; with a format other than uvicorn's, the message is the finished line.

Lines about refused requests and cut connections come at most a hundred at once and ten a second in the long
run; the rest is counted, in one line a second.

A file for `--log-config` may use the formatters `asgiserver.logs.Formatter` (knows `%(levelprefix)s`) and
`asgiserver.logs.AccessFormatter` (also `%(client_addr)s`, `%(request_line)s`, `%(status_code)s`).
"""


def load_table() -> ModuleType:
    """The table alone: the package itself need not be built."""
    spec = importlib.util.spec_from_file_location("options", TABLE)
    assert spec is not None
    assert spec.loader is not None
    table = sys.modules["options"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    return table


def row_text(option: Any) -> str:
    """One line of a group's table."""
    default = option.default not in (None, "", ()) and f"`{option.text(option.default)}`"
    words = f"{option.help}{range_text(option)}".replace("|", "\\|")
    return f"| `{option.spelling.replace('|', chr(92) + '|')}` | {default or ''} | {words} |\n"


def range_text(option: Any) -> str:
    if option.minimum is None and option.maximum is None:
        return ""
    least, most = option.text(option.minimum), option.text(option.maximum)
    zero = "0, or " if option.zero and option.minimum > 0 else ""
    return f" Range: {zero}{least} to {most}."


def page(table: ModuleType) -> str:
    parts = [HEAD]
    for group, note in table.GROUPS.items():
        rows = [row_text(option) for option in table.OPTIONS if option.group == group]
        note_line = f"{note[0].upper()}{note[1:]}.\n\n" if note else ""
        parts.append(
            f"## {group}\n\n{note_line}| option | default | what it does |\n|---|---|---|\n"
            + "".join(rows)
        )
    parts.append(TAIL)
    return "\n".join(parts)


def main(*words: str) -> int:
    text = page(load_table())
    if words == ("--check",):
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print("docs/config.md is out of date: run tools/gen_config_docs.py", file=sys.stderr)
        return 1
    if words:
        print(f"usage: {Path(__file__).name} [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

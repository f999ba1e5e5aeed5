"""Writes limits.gen.h from the option table: ``gen_limits.py asgiserver/options.py limits.gen.h``.

The table is loaded by its path: the package itself cannot be imported before it is built.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.dont_write_bytecode = True


def main(table: str, header: str) -> None:
    spec = importlib.util.spec_from_file_location("options", table)
    assert spec is not None
    assert spec.loader is not None
    options = sys.modules["options"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(options)
    Path(header).write_text(options.limits_header(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

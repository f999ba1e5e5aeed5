"""Where the figures of attacks go: build/results/NAME.json, from which tools/gen_security_figures.py takes them."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "build" / "results"


def write(name: str, figures: dict[str, Any] | list[dict[str, Any]]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return path


def python() -> str:
    return platform.python_version()

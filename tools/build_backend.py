"""The PEP 517 backend: meson-python, after making sure that llhttp's source is there."""

from __future__ import annotations

import os
import shutil
from typing import Any

import fetch_llhttp
import mesonpy
from mesonpy import (
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

Settings = dict[str, Any] | None


def prepare() -> None:
    """Everything without which meson would stop with a message that does not say what to install."""
    for variable, program, package in (
        ("CC", "cc", "gcc"),
        ("PKG_CONFIG", "pkg-config", "pkg-config"),
    ):
        if not (os.environ.get(variable) or shutil.which(program)):
            raise SystemExit(
                f"error: {program} is missing; Debian and Ubuntu: apt install {package}"
            )
    try:
        fetch_llhttp.fetch()
    except fetch_llhttp.FetchError as error:
        raise SystemExit(f"error: {error}") from None


def build_sdist(directory: str, settings: Settings = None) -> str:
    prepare()
    return str(mesonpy.build_sdist(directory, settings))


def build_wheel(directory: str, settings: Settings = None, metadata: str | None = None) -> str:
    prepare()
    return str(mesonpy.build_wheel(directory, settings, metadata))


def build_editable(directory: str, settings: Settings = None, metadata: str | None = None) -> str:
    prepare()
    return str(mesonpy.build_editable(directory, settings, metadata))

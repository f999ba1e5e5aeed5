"""Fetches the source archive that subprojects/llhttp.wrap names, which carries llhttp.

Run by the build backend (build_backend.py beside this file), or by hand before a bare ``meson setup``.
Nothing is fetched where the system has a fitting libllhttp, or where the archive is there already:
in a source distribution, or put into subprojects/packagefiles/ by hand on a machine without network.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUBPROJECTS = ROOT / "subprojects"
SYSTEM_LLHTTP = "libllhttp >= 9.3"  # The same bound stands in csrc/meson.build.
TIMEOUT = 300  # seconds


class FetchError(RuntimeError):
    """The archive is not there and cannot be had; the message says what to do."""


def fetch() -> None:
    """Makes sure that meson finds llhttp without a network."""
    wrap = configparser.ConfigParser()
    wrap.read(SUBPROJECTS / "llhttp.wrap", encoding="utf-8")
    source = wrap["wrap-file"]
    archive = SUBPROJECTS / "packagefiles" / source["source_filename"]
    if (SUBPROJECTS / source["directory"] / "meson.build").exists() or system_has_llhttp():
        return
    if archive.exists():
        verify(archive, source["source_hash"])
    else:
        name, _, version = source["directory"].rpartition("-")
        download(name, version, source["source_hash"], archive)


def system_has_llhttp() -> bool:
    pkg_config = os.environ.get("PKG_CONFIG") or shutil.which("pkg-config")
    if not pkg_config:
        return False
    return subprocess.run([pkg_config, "--exists", SYSTEM_LLHTTP], check=False).returncode == 0


def verify(archive: Path, sha256: str) -> None:
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise FetchError(f"{archive} is not the file that subprojects/llhttp.wrap names: remove it")


def download(name: str, version: str, sha256: str, archive: Path) -> None:
    """By pip, so that its settings (index, proxy, certificates, local folders) hold here too."""
    print(f"fetching {archive.name}, which carries llhttp", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder, "requirement.txt")
        requirement.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
        # pip checks the hash before it looks into the archive.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
        command += ["--disable-pip-version-check", "--no-deps", "--no-binary", name]
        command += ["--require-hashes", "--dest", folder, "--requirement", str(requirement)]
        # Inside a build these name our own backend, which pip would take for that of the archive.
        hooks = ("_PYPROJECT_HOOKS_", "PEP517_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(hooks)}
        try:
            subprocess.run(
                command, check=True, env=environ, stdin=subprocess.DEVNULL, timeout=TIMEOUT
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise FetchError(
                f"cannot fetch {name} {version} with pip (see above). Without a network put its "
                f"source, {archive.name}, into {archive.parent}, or install {SYSTEM_LLHTTP} "
                "with its pkg-config file"
            ) from error
        fetched = Path(folder, archive.name)
        verify(fetched, sha256)
        archive.parent.mkdir(parents=True, exist_ok=True)
        # Another build may do the same now: the file appears whole or not at all.
        partial = archive.with_suffix(f".{os.getpid()}")
        shutil.copyfile(fetched, partial)
        partial.replace(archive)


if __name__ == "__main__":
    try:
        fetch()
    except FetchError as error:
        sys.exit(f"error: {error}")

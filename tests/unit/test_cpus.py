"""How many processors may be used, from control groups of both versions."""

import os

import pytest

from asgiserver import cpus


@pytest.fixture(autouse=True)
def _many(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def tree(root, files):
    for name, text in files.items():
        path = root / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "groups"


UNIFIED = "0::/system/app\n"
LEGACY = "5:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (UNIFIED, {}, 16),
        (UNIFIED, {"system/app/cpu.max": "max 100000\n"}, 16),
        (UNIFIED, {"system/app/cpu.max": "200000 100000\n"}, 2),
        (UNIFIED, {"system/app/cpu.max": "150000 100000\n"}, 2),
        (UNIFIED, {"system/app/cpu.max": "20000 100000\n"}, 1),
        (UNIFIED, {"system/app/cpu.max": "max 100000\n", "system/cpu.max": "300000 100000\n"}, 3),
        (UNIFIED, {"system/app/cpu.max": "4000000 100000\n"}, 16),
        (UNIFIED, {"cpu.max": "500000 100000\n"}, 5),  # a container sees its own group as the root
        (UNIFIED, {"system/app/cpu.max": ""}, 16),
        (LEGACY, {"cpu/docker/abc/cpu.cfs_quota_us": "-1", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 16),
        (LEGACY, {"cpu/docker/abc/cpu.cfs_quota_us": "400000", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 4),
        (LEGACY, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (LEGACY, {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "400000", "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000"}, 4),
        ("0::/../../other\n", {"cpu.max": "200000 100000\n"}, 2),
        ("", {"cpu.max": "100000 100000\n"}, 16),
    ],
)  # fmt: skip
def test_usable(tmp_path, membership, files, expected):
    groups = tree(tmp_path, files)
    file = tmp_path / "cgroup"
    file.write_text(membership)
    assert cpus.usable(groups, file) == expected


def test_without_groups(tmp_path):
    assert cpus.usable(tmp_path, tmp_path / "missing") == 16


def test_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3})
    assert cpus.usable(tmp_path, tmp_path / "missing") == 2


def test_here():
    assert 1 <= cpus.usable() <= 16

"""The machine and the code that results come from: for their provenance, and for even timings."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ijrlib import store


def code_version() -> dict[str, Any]:
    """Commit of the checkout, and whether the library differs from it; None outside a checkout."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(store.root()), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--", "ijrlib")
    except FileNotFoundError:
        commit = changes = None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those of the named packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Name of the CPU's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def check_device(device: str) -> None:
    """Without torch, which is asked later whether the device is there.

    Raises:
        ValueError: for another name than auto, cpu, cuda or cuda:N.
    """
    if not (isinstance(device, str) and re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d*))?", device)):
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N; got {device!r}")


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of handing each large one back to the system.

    Activations are freed and asked for again at every step; without this a third of the time on a
    CPU goes into page faults.  Elsewhere than on glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)

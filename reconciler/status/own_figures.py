"""
What this program itself uses.

The client library asks /proc/stat for the boot time and exports nothing where
a hardened unit hides that file (ProcSubset=pid). All of this is read from
/proc/self, and each figure by itself: what cannot be read takes no other with it.
"""

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_STARTED_TICKS = 19  # fields of /proc/self/stat behind the program's name, see proc(5)


class OwnFigures(Collector):
    """Memory, processor time, open files and the start, under their usual names."""

    def __init__(self, own: Path = Path("/proc/self")) -> None:
        self._own = own

    def collect(self) -> Iterator[Metric]:
        """Read them afresh; what cannot be read is left out."""
        times = os.times()
        yield CounterMetricFamily(
            "process_cpu_seconds_total", "Processor time used, user and system.", times.user + times.system
        )
        for name, about, read in (
            ("process_max_fds", "Files that may be open at once.", _most_files),
            ("process_open_fds", "Files open now.", self._open_files),
            ("process_virtual_memory_bytes", "Memory reserved.", lambda: self._memory_bytes(0)),
            ("process_resident_memory_bytes", "Memory in use.", lambda: self._memory_bytes(1)),
            ("process_start_time_seconds", "Start, in seconds since 1970.", lambda: self._started_at),
        ):
            with suppress(OSError, ValueError, IndexError):
                yield _gauge(name, about, read)

    def _open_files(self) -> int:
        return sum(1 for _ in (self._own / "fd").iterdir())

    def _memory_bytes(self, field: int) -> int:
        return int((self._own / "statm").read_text().split()[field]) * resource.getpagesize()

    @cached_property
    def _started_at(self) -> float:
        """Computed once: from clocks that are corrected it would differ each time, and look like restarts."""
        fields = (self._own / "stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_STARTED_TICKS]) / os.sysconf("SC_CLK_TCK")
        return time.time() - age


def _most_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _gauge(name: str, about: str, read: Callable[[], float]) -> Metric:
    return GaugeMetricFamily(name, about, value=read())

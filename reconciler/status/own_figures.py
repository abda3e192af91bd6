"""
What this program itself uses.

The client library asks /proc/stat for the boot time and exports nothing where
a hardened unit hides that file. All of this is read from /proc/self.
"""

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SELF = Path("/proc/self")
_STARTED_TICKS = 19  # fields of /proc/self/stat behind the program's name, see proc(5)


class OwnFigures(Collector):
    """Memory, processor time, open files and the start, under their usual names."""

    def collect(self) -> Iterator[Metric]:
        """Read them afresh; what cannot be read is left out."""
        times = os.times()
        yield CounterMetricFamily(
            "process_cpu_seconds_total", "Processor time used, user and system.", times.user + times.system
        )
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield _gauge("process_max_fds", "Files that may be open at once.", limit)
        try:
            yield from self._read()
        except (OSError, ValueError, IndexError):
            return

    def _read(self) -> Iterator[Metric]:
        virtual, resident = (int(pages) for pages in (_SELF / "statm").read_text().split()[:2])
        page = resource.getpagesize()
        yield _gauge("process_resident_memory_bytes", "Memory in use.", resident * page)
        yield _gauge("process_virtual_memory_bytes", "Memory reserved.", virtual * page)
        yield _gauge("process_open_fds", "Files open now.", sum(1 for _ in (_SELF / "fd").iterdir()))
        fields = (_SELF / "stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_STARTED_TICKS]) / os.sysconf("SC_CLK_TCK")
        yield _gauge("process_start_time_seconds", "Start, in seconds since 1970.", time.time() - age)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)

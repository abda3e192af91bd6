"""
Children that end with us, however we end.

The kernel kills the child when the thread that started it is gone. The check
of the parent's id closes the gap in which the parent died before the child
could ask for this.
"""

import os
import sys
from collections.abc import Sequence

TIE = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.getppid() == int(sys.argv[1]) or os._exit(1); "
)
"""Python that ties the program it begins; the parent's process id is its first argument."""


def tied(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command`, an absolute path and its arguments, as such a child."""
    run = TIE + "os.execv(sys.argv[2], sys.argv[2:])"
    return [sys.executable, "-P", "-c", run, str(os.getpid()), *command]

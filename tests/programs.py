"""Programs of Debian that some tests need."""

import os
import shutil
from typing import NoReturn

import pytest


def program(package: str, *names: str) -> str:
    """The path of the first of these names; without any the test is skipped, unless nothing may be."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        skip(f"{names[0]} is not installed: apt-get install {package}")
    return found


def skip(reason: str) -> NoReturn:
    """Skip the test; fail it where nothing may be skipped."""
    if os.environ.keys() & {"RECONCILER_SKIP_NOTHING", "CI"}:
        pytest.fail(reason)
    pytest.skip(reason)

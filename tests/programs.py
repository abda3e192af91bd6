"""Programs of Debian that some tests need."""

import os
import shutil

import pytest


def program(package: str, *names: str) -> str:
    """The path of the first of these names; without any the test is skipped, unless nothing may be."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        told = f"{names[0]} is not installed: apt-get install {package}"
        if os.environ.get("RECONCILER_SKIP_NOTHING"):
            pytest.fail(told)
        pytest.skip(told)
    return found

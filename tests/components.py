"""Programs that some tests need and that are not Python packages."""

from __future__ import annotations

import os
import shutil

import pytest


def component(name: str, *, hint: str) -> str:
    """The path of the program `name`. Without it the test is skipped, with CI=true it fails; `hint` is what to do."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is not None:
        return found
    message = f"{name} is missing: {hint}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)

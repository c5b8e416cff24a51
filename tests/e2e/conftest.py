"""The cloud side for every end-to-end test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Site, open_site


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened

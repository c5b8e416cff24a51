from __future__ import annotations

import pytest

from tests.pki import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA for one file of tests, and whoever it makes certificates for."""
    return Authority(tmp_path_factory.mktemp("pki"))

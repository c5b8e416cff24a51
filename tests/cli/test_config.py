"""`lorabridge config example`: what a new operator starts from."""

from __future__ import annotations

import io
import sys

import pytest

from lorabridge.cli.main import main
from lorabridge.daemon import config_text


def test_the_example_passes_the_check_that_the_operator_runs_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["config", "example"]) == 0
    example = capsys.readouterr().out
    assert example == config_text.example()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(example.encode())))
    assert main(["check", "--form-only", "--config", "-"]) == 0
    assert capsys.readouterr().out == "in order\n"


def test_there_is_nothing_else_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["config", "everything"])
    assert ended.value.code == 2
    assert "example" in capsys.readouterr().err

"""docs/decode.md is run, and names every field and reason that there is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lorabridge.lorawan.inspection import KnownKeys
from lorabridge.lorawan.question import Fault

DOCUMENT = (Path(__file__).parents[2] / "docs" / "decode.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```console\n\$ lorabridge (.*?)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("command", "body"), EXAMPLES)
def test_the_examples_print_what_the_document_shows(command: str, body: str) -> None:
    lines = body.splitlines(keepends=True)
    stdin = "".join(line[2:] for line in lines if line.startswith("< "))
    argv = [sys.executable, "-m", "lorabridge.cli.main", *shlex.split(command)]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "".join(line for line in lines if not line.startswith("< "))


def test_the_document_has_an_example_of_each_kind() -> None:
    assert [("--jsonl" in command) for command, _ in EXAMPLES] == [False, True]


def test_the_document_names_every_key_and_every_reason() -> None:
    for name in (*KnownKeys.__struct_fields__, *(fault.value for fault in Fault)):
        assert f"`{name}`" in DOCUMENT
    answers = [json.loads(line) for line in EXAMPLES[1][1].splitlines() if not line.startswith("< ")]
    for field in {name for answer in answers for name in answer}:
        assert f"`{field}`" in DOCUMENT

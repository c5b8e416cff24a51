"""The guide for an empty account: every command is one that the AWS CLI knows, and the configuration is in order.

The AWS CLI is made from botocore's models: a command is an operation, an option one of its fields.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from lorabridge.daemon import config

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("aws-from-nothing.md", "aws.md", "shadow.md", "jobs.md", "formats.md", "downlinks.md")
OF_THE_CLI = {"query", "output", "max-items", "cli-binary-format", "region", "certificate-pem-outfile"}
OF_THE_CLI |= {"private-key-outfile", "public-key-outfile"}
"""Options of the CLI itself, and of its customisations."""
DEPLOY = {"stack-name", "template-file", "capabilities", "parameter-overrides"}
"""`aws cloudformation deploy` is a customisation, and no operation."""


def commands() -> list[str]:
    """Every `aws …` of the pages, with the page it stands on."""
    found: list[str] = []
    for page in PAGES:
        text = (DOCS / page).read_text().replace("\\\n", " ")
        lines = re.findall(r"(?:^|\s|`)(aws [a-z-]+ [a-z-]+(?: [^\n`]*)?)", text)
        found += [f"{page}: {line}" for line in lines]
    return found


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_guide_is_one_that_the_cli_knows(command: str) -> None:
    _, service, name, *arguments = shlex.split(command.partition(": ")[2].rstrip(".,;)"))
    options = {argument.removeprefix("--") for argument in arguments if argument.startswith("--")}
    if (service, name) == ("cloudformation", "deploy"):
        assert options <= DEPLOY
        return
    model = botocore.session.get_session().get_service_model(service)
    operations = {xform_name(operation, "-"): operation for operation in model.operation_names}
    assert name in operations
    shape = model.operation_model(operations[name]).input_shape
    fields = {xform_name(field, "-") for field in shape.members}
    assert options <= fields | OF_THE_CLI, options - fields
    required = {xform_name(field, "-") for field in shape.required_members}
    assert not options or required <= options, required - options


def test_the_configuration_of_the_guide_is_in_order() -> None:
    text = (DOCS / "aws-from-nothing.md").read_text()
    written, websocket = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    loaded = config.parse(written.encode(), "the guide")
    assert (loaded.gateway.id, loaded.link.thing_name) == ("roof-1", "roof-1")
    extended = written.replace("[aws_iot]\n", '[aws_iot]\ntransport = "websocket"\n')
    way = config.parse(f"{extended}\n{websocket}".encode(), "the guide").aws_iot
    assert way is not None
    assert (way.transport, way.websocket.role_alias) == ("websocket", "lorabridge")

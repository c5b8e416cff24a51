"""The `[[radio]]` tables that go with a set-up: one for each program that can drive the concentrator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from lorabridge.radio.concentrator_files import Setup

FILE = "radio.toml"
"""The file that holds them."""


def radio_tables(setup: Setup, board_name: str, folder: Path) -> str:
    """A piece of TOML: a table for each way to drive the board, all but the first of them switched off by `#`.

    `board_name` as in `hardware/boards/`; `folder`: where the files of the set-up are.
    """
    plan = setup.plan
    configuration = json.dumps(str(folder.resolve() / "global_conf.json"), ensure_ascii=False)  # as TOML writes it
    sub_band = f"sub_band = {plan.sub_band}\n" if plan.sub_band else ""
    gnss = "" if setup.gnss_device is None else f'gnss_device = "{setup.gnss_device}"\n'
    ways = (
        (
            "lorabridge drives the concentrator itself, through the vendor's library (docs/sx1302.md).",
            f'type = "sx1302"\nconfiguration = {configuration}\nboard = "{board_name}"\n{gnss}',
        ),
        ("lora_pkt_fwd drives it, started in the folder of these files.", 'type = "semtech_udp"\nport = 1700\n'),
        (
            "Basics Station drives it, with station.conf in its home folder (docs/basics-station.md).",
            f'type = "basics_station"\nregion = "{plan.region.name}"\n{sub_band}port = 1887\n',
        ),
    )
    head = (
        f"# {setup.board.name}, {plan.name}. One of these goes into lorabridge.toml: a concentrator has one driver.\n"
    )
    return "\n".join((head, *_switched(ways)))


def _switched(ways: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """The first as it is, the others behind `#`."""
    for number, (says, body) in enumerate(ways):
        table = f"[[radio]]\n{body}"
        lines = table if number == 0 else "".join(f"#{line}\n" for line in table.splitlines())
        yield f"# {says}\n{lines}"

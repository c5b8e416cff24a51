"""The settings of a concentrator on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from lorabridge.radio.gnss.framing import BAUD
from lorabridge.radio.source_settings import SourceName
from lorabridge.settings import Duration

COM_PATH_LIMIT: Final = 49
"""Bytes: the library copies the path of a USB device into 50."""


class Sx1302Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[radio]]` of type `sx1302`: a concentrator with SX1302 or SX1303 on this machine, without a forwarder."""

    name: SourceName = "sx1302"
    library: Annotated[
        Path, Meta(description="libloragw.so of sx1302_hal 2.1.0; docs/sx1302.md says how to build it")
    ] = Path("/usr/local/lib/libloragw.so")
    configuration: Annotated[
        Path, Meta(description="channel plan, radios and TX gains: global_conf.json of the vendor's forwarder")
    ] = Path("/etc/lorabridge/global_conf.json")
    com_type: Annotated[
        Literal["SPI", "USB"] | None, Meta(description="how the board is attached; else com_type of the file holds")
    ] = None
    device: Annotated[
        str | None,
        Meta(
            description="device of the board; else com_path of the file holds",
            examples=["/dev/ttyACM0", "/dev/spidev0.0"],
        ),
    ] = None
    board: Annotated[
        str | None,
        Meta(
            description="name of the board, a file of hardware/boards/: its reset and power lines are pulled before"
            " every start; needed on SPI unless something else resets it",
            examples=["rak5146", "waveshare_sx1302_lorawan_gateway_hat"],
        ),
    ] = None
    gnss_device: Annotated[
        str | None,
        Meta(
            description="serial port of the board's GNSS receiver: position, GPS time of frames, and transmissions at"
            " a GPS time if it sends UBX-NAV-TIMEGPS",
            examples=["/dev/ttyAMA0"],
        ),
    ] = None
    gnss_baud: Annotated[int, Meta(ge=1200, le=921_600, description="speed of that port")] = BAUD
    start_timeout: Annotated[Duration, Meta(description="how long the concentrator may take to start")] = Duration(6)
    silence: Annotated[
        Duration, Meta(description="a library that says nothing for this long hangs, and is ended and restarted")
    ] = Duration(2.5)

    def __post_init__(self) -> None:
        if self.device is not None and not 0 < len(self.device.encode()) <= COM_PATH_LIMIT:
            raise ValueError(f"device: 1 to {COM_PATH_LIMIT} bytes, the library has no room for more")
        if self.gnss_device is not None and not self.gnss_device.startswith("/"):
            raise ValueError("gnss_device: the path of a serial port, as /dev/ttyAMA0")
        if not 1 <= self.start_timeout <= 120 or not 1.5 <= self.silence <= 60:
            raise ValueError("start_timeout: 1s to 2min; silence: 1500ms to 60s")

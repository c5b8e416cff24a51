"""The vendor's `global_conf.json` (`SX130x_conf`): board, radios, channels and TX gain tables.

Source: sx1302_hal 2.1.0, packet_forwarder/src/lora_pkt_fwd.c, parse_SX130x_configuration; what it takes is taken.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from lorabridge.errors import ConfigError, Problem
from lorabridge.radio.sx1302 import abi
from lorabridge.radio.wire_values import I32, U32, Decibel

SCAN_STEP_HZ: Final = 200_000
"""Between two channels of the spectral scan."""
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*"?)|/\*(?:.*?\*/|.*)|//[^\n]*', re.DOTALL)
"""Text, kept, and comments. One that does not end goes to the end of the file: nothing is searched twice."""
_SIZE_LIMIT = 1 << 20
_Float = Annotated[float, Meta(ge=-1e9, le=1e9)]
_Byte = Annotated[int, Meta(ge=0, le=255)]
_Signed = Annotated[int, Meta(ge=-128, le=127)]


class Compensation(msgspec.Struct, frozen=True):
    """Polynomial of the RSSI over the temperature."""

    coeff_a: _Float = 0.0
    coeff_b: _Float = 0.0
    coeff_c: _Float = 0.0
    coeff_d: _Float = 0.0
    coeff_e: _Float = 0.0


class Gain(msgspec.Struct, frozen=True):
    """A step of the TX gain table; `rf_power` in dBm at the connector."""

    rf_power: _Signed
    pa_gain: _Byte = 0
    pwr_idx: Annotated[int, Meta(ge=0, le=22)] = 0
    dig_gain: Annotated[int, Meta(ge=0, le=3)] = 0
    dac_gain: Annotated[int, Meta(ge=0, le=3)] = 3
    mix_gain: Annotated[int, Meta(ge=5, le=15)] = 5
    """The library wants 5 to 15 here, even of an SX1250, which has no mixer."""


class Radio(msgspec.Struct, frozen=True):
    """`radio_0` or `radio_1`; frequencies in Hz."""

    enable: bool = False
    type: Literal["SX1250", "SX1255", "SX1257"] = "SX1250"
    freq: U32 = 0
    rssi_offset: Decibel = 0.0
    rssi_tcomp: Compensation = Compensation()
    single_input_mode: bool = False
    tx_enable: bool = False
    tx_freq_min: U32 = 0
    tx_freq_max: U32 = 0
    tx_gain_lut: Annotated[tuple[Gain, ...], Meta(max_length=abi.GAIN_TABLE_SIZE)] = ()


class Channel(msgspec.Struct, frozen=True, rename={"offset": "if"}):
    """A demodulator: Hz relative to the radio's frequency."""

    enable: bool = False
    radio: Annotated[int, Meta(ge=0, lt=abi.RF_CHAINS)] = 0
    offset: I32 = 0
    bandwidth: U32 = 0
    spread_factor: Annotated[int, Meta(ge=5, le=12)] | None = None
    datarate: U32 = 0
    implicit_hdr: bool = False
    implicit_payload_length: _Byte = 0
    implicit_crc_en: bool = False
    implicit_coderate: Annotated[int, Meta(ge=0, le=4)] = 0


class FineTime(msgspec.Struct, frozen=True):
    """Fine timestamps of an SX1303."""

    enable: bool = False
    mode: Literal["high_capacity", "all_sf"] = "all_sf"


class LbtChannel(msgspec.Struct, frozen=True):
    """A channel on which is listened before a transmission."""

    freq_hz: U32
    bandwidth: Literal[125_000, 250_000]
    scan_time_us: Literal[128, 5000]
    transmit_time_ms: Annotated[int, Meta(ge=2, le=0xFFFF)]
    """The longest transmission after it; the library wants 1.5 ms of it for itself."""


class Lbt(msgspec.Struct, frozen=True):
    """Listen-before-talk: a channel above `rssi_target` dBm is busy."""

    enable: bool = False
    rssi_target: _Signed = 0
    channels: Annotated[tuple[LbtChannel, ...], Meta(max_length=abi.LBT_CHANNELS)] = ()


class SpectralScan(msgspec.Struct, frozen=True):
    """The background scan: `nb_chan` channels 200 kHz apart, one of them every `pace_s` seconds."""

    enable: bool = False
    freq_start: U32 = 0
    nb_chan: Annotated[int, Meta(ge=0, le=64)] = 0
    nb_scan: Annotated[int, Meta(ge=0, le=0xFFFF)] = 0
    """Measurements of each scan."""
    pace_s: Annotated[int, Meta(ge=0, le=86_400)] = 10


class Sx1261(msgspec.Struct, frozen=True):
    """The second radio of some boards, which listens only."""

    spi_path: Annotated[str, Meta(max_length=abi.SPI_PATH_LIMIT, pattern=r"^[\x21-\x7e]*$")] = ""
    rssi_offset: _Signed = 0
    spectral_scan: SpectralScan = SpectralScan()
    lbt: Lbt = Lbt()

    @property
    def is_needed(self) -> bool:
        """Whether anything uses it."""
        return self.lbt.enable or self.spectral_scan.enable


class _AllSf(msgspec.Struct, frozen=True):
    spreading_factor_enable: tuple[Annotated[int, Meta(ge=5, le=12)], ...] = (5, 6, 7, 8, 9, 10, 11, 12)


class Plan(msgspec.Struct, frozen=True, rename={"lora_std": "chan_Lora_std", "fsk": "chan_FSK"}):
    """`SX130x_conf`; `antenna_gain` in dBi."""

    com_type: Literal["SPI", "USB"] = "SPI"
    com_path: str = ""
    lorawan_public: bool = True
    clksrc: Annotated[int, Meta(ge=0, lt=abi.RF_CHAINS)] = 0
    full_duplex: bool = False
    antenna_gain: _Signed = 0
    fine_timestamp: FineTime = FineTime()
    sx1261_conf: Sx1261 = Sx1261()
    radio_0: Radio = Radio()
    radio_1: Radio = Radio()
    chan_multiSF_All: _AllSf = _AllSf()  # noqa: N815  # the vendor's name
    chan_multiSF_0: Channel = Channel()  # noqa: N815
    chan_multiSF_1: Channel = Channel()  # noqa: N815
    chan_multiSF_2: Channel = Channel()  # noqa: N815
    chan_multiSF_3: Channel = Channel()  # noqa: N815
    chan_multiSF_4: Channel = Channel()  # noqa: N815
    chan_multiSF_5: Channel = Channel()  # noqa: N815
    chan_multiSF_6: Channel = Channel()  # noqa: N815
    chan_multiSF_7: Channel = Channel()  # noqa: N815
    lora_std: Channel = Channel()
    fsk: Channel = Channel()

    @property
    def radios(self) -> tuple[Radio, Radio]:
        """Both RF chains."""
        return self.radio_0, self.radio_1

    @property
    def can_transmit(self) -> bool:
        """Whether any radio has a transmitter."""
        return any(radio.enable and radio.tx_enable for radio in self.radios)

    @property
    def multi_sf(self) -> tuple[Channel, ...]:
        """The eight multi-SF demodulators."""
        return tuple(getattr(self, f"chan_multiSF_{number}") for number in range(abi.MULTI_SF_CHAINS))


class _File(msgspec.Struct, frozen=True, rename={"plan": "SX130x_conf"}):
    plan: Plan


_FILE = msgspec.json.Decoder(_File)


def read_plan(path: Path) -> Plan:
    """The plan in a file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            text = file.read(_SIZE_LIMIT + 1)
    except OSError as error:
        raise _refusal(path, error.strerror or str(error), "give the vendor's global_conf.json") from None
    if len(text) > _SIZE_LIMIT:
        raise _refusal(path, "is longer than 1 MiB", "give the vendor's global_conf.json")
    try:
        plan = _FILE.decode(_COMMENT.sub(lambda found: found[1] or " ", text.decode("utf-8"))).plan
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise _refusal(path, str(error), "it must be a global_conf.json with SX130x_conf") from None
    wrong = [*_wrong_radios(plan), *_wrong_channels(plan), *_wrong_sx1261(plan)]
    if wrong:
        raise _refusal(path, "; ".join(wrong), "correct the file")
    return plan


def _refusal(path: Path, what: str, hint: str) -> ConfigError:
    return ConfigError([Problem(where=str(path), what=what, hint=hint)])


def _wrong_radios(plan: Plan) -> list[str]:
    """What cannot be of the radios."""
    wrong: list[str] = []
    if not plan.radios[plan.clksrc].enable:
        wrong.append(f"clksrc: radio_{plan.clksrc} is not enabled")
    for number, radio in enumerate(plan.radios):
        if radio.enable and not 100_000_000 <= radio.freq <= 1_000_000_000:
            wrong.append(f"radio_{number}.freq: 100 MHz to 1 GHz")
        if radio.tx_enable and not (radio.tx_gain_lut and 0 < radio.tx_freq_min <= radio.tx_freq_max):
            wrong.append(f"radio_{number}: to transmit it needs tx_freq_min, tx_freq_max and tx_gain_lut")
    return wrong


def _wrong_channels(plan: Plan) -> list[str]:
    """What the demodulators cannot do."""
    wrong: list[str] = []
    channels = [(f"chan_multiSF_{number}", channel, 125_000) for number, channel in enumerate(plan.multi_sf)]
    channels += [(n, c, c.bandwidth) for n, c in (("chan_Lora_std", plan.lora_std), ("chan_FSK", plan.fsk))]
    for name, channel, bandwidth in channels:
        if not channel.enable:
            continue
        if bandwidth not in abi.BANDWIDTHS:
            wrong.append(f"{name}.bandwidth: 125000, 250000 or 500000")
        elif abs(channel.offset) + bandwidth // 2 > 800_000:
            wrong.append(f"{name}.if: the channel lies beyond 800 kHz from the radio's frequency")
        if not plan.radios[channel.radio].enable:
            wrong.append(f"{name}.radio: radio_{channel.radio} is not enabled")
    if plan.lora_std.enable and plan.lora_std.spread_factor is None:
        wrong.append("chan_Lora_std.spread_factor is missing")
    if plan.fsk.enable and not 500 <= plan.fsk.datarate <= 250_000:
        wrong.append("chan_FSK.datarate: 500 to 250000 bit/s")
    return wrong


def _wrong_sx1261(plan: Plan) -> list[str]:
    """What the listening radio cannot do; the library says no more than -1 to it, at the first transmission."""
    wrong: list[str] = []
    conf = plan.sx1261_conf
    if conf.is_needed and plan.com_type == "SPI" and not conf.spi_path:
        wrong.append("sx1261_conf.spi_path is missing: the SX1261 has a device of its own")
    if conf.lbt.enable and not conf.lbt.channels:
        wrong.append("sx1261_conf.lbt.channels: without a channel nothing could be sent")
    scan = conf.spectral_scan
    last = scan.freq_start + max(0, scan.nb_chan - 1) * SCAN_STEP_HZ
    if scan.enable and not (scan.nb_chan and scan.nb_scan and scan.freq_start >= 100_000_000 and last <= 1_000_000_000):
        wrong.append("sx1261_conf.spectral_scan: freq_start (100 MHz to 1 GHz), nb_chan and nb_scan are needed")
    return wrong

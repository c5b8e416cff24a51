"""CFList: the channels that a join-accept brings along (TS001-1.0.4 §6.2.6, RP002-1.0.4 by region)."""

from __future__ import annotations

import msgspec

SIZE = 16
MAX_FREQUENCIES = 5
MAX_CHANNELS = 96
_FREQUENCIES, _MASKS = 0, 1
_STEP_HZ, _STEP_2400_HZ = 100, 200
_BAND_2400_HZ = 2_400_000_000
"""From here on frequencies travel in steps of 200 Hz: 24 bits of 100 Hz end at 1.68 GHz."""


class CFList(msgspec.Struct, frozen=True):
    """What a CFList says: either frequencies of added channels, or which channels are enabled."""

    cf_list_type: int
    frequencies_hz: tuple[int, ...] = ()
    """Type 0: of the channels after the default ones, in order; 0 for a channel that is left out."""
    channels: frozenset[int] = frozenset()
    """Type 1: indices of the enabled channels; every other one is disabled."""


def build_frequency(frequency_hz: int) -> bytes:
    """The 24 bits that stand for a frequency, in a CFList as in MAC commands (TS001-1.0.4 §5.5).

    Raises ValueError for one that the field cannot hold.
    """
    step = _STEP_2400_HZ if frequency_hz >= _BAND_2400_HZ else _STEP_HZ
    units, rest = divmod(frequency_hz, step)
    if rest or not 0 <= units < 1 << 24:
        raise ValueError(f"{frequency_hz} Hz is no multiple of {step} Hz that fits 24 bits")
    return units.to_bytes(3, "little")


def parse_frequency(data: bytes) -> int:
    """Hz of a 24-bit frequency. Raises ValueError for another length than three bytes."""
    if len(data) != 3:
        raise ValueError(f"a frequency is 3 bytes, not {len(data)}")
    units = int.from_bytes(data, "little")
    # No band lies between 1.2 and 1.68 GHz, where the two meanings overlap.
    return units * (_STEP_2400_HZ if units * _STEP_2400_HZ >= _BAND_2400_HZ else _STEP_HZ)


def build_frequencies(frequencies_hz: tuple[int, ...]) -> bytes:
    """CFList of type 0: at most five frequencies. Raises ValueError for more, or for one that does not fit."""
    if len(frequencies_hz) > MAX_FREQUENCIES:
        raise ValueError(f"a CFList has room for {MAX_FREQUENCIES} frequencies, not {len(frequencies_hz)}")
    return b"".join(map(build_frequency, frequencies_hz)).ljust(SIZE - 1, b"\0") + bytes([_FREQUENCIES])


def build_masks(channels: frozenset[int]) -> bytes:
    """CFList of type 1: the indices of the enabled channels, 0 to 95. Raises ValueError for any other."""
    if not all(0 <= channel < MAX_CHANNELS for channel in channels):
        raise ValueError(f"a CFList has room for the channels 0 to {MAX_CHANNELS - 1}")
    mask = sum(1 << channel for channel in channels)
    return mask.to_bytes(SIZE - 1, "little") + bytes([_MASKS])


def parse(data: bytes) -> CFList:
    """Read a CFList. Raises ValueError for another length or type."""
    if len(data) != SIZE:
        raise ValueError(f"a CFList is {SIZE} bytes, not {len(data)}")
    if data[-1] == _FREQUENCIES:
        fields = data[: 3 * MAX_FREQUENCIES]
        found = [parse_frequency(fields[at : at + 3]) for at in range(0, len(fields), 3)]
        while found and not found[-1]:
            found.pop()
        return CFList(_FREQUENCIES, frequencies_hz=tuple(found))
    if data[-1] == _MASKS:
        mask = int.from_bytes(data[: MAX_CHANNELS // 8], "little")
        return CFList(_MASKS, channels=frozenset(i for i in range(MAX_CHANNELS) if mask >> i & 1))
    raise ValueError(f"there is no CFList of type {data[-1]}")

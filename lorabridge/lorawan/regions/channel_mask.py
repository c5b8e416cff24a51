"""ChMaskCntl and ChMask of LinkADRReq: from a set of channels to requests, and back (RP002-1.0.4 by region)."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from lorabridge.lorawan.regions.types import Region

_BLOCK = 16
_NARROW = (1 << 64) - 1
"""The channels of 125 kHz of US915 and AU915; eight of 500 kHz follow."""
_WIDE = _BANK = 0xFF
_WIDE_ONLY, _BANKS, _ALL, _NO_NARROW = 4, 5, 6, 7


class MaskTable(enum.Enum):
    """The three meanings of ChMaskCntl; the value is the section of RP002-1.0.4 that has the table."""

    DYNAMIC = "2.4.5"
    """0: the sixteen channels. 6: all that the device has."""
    WIDE = "2.5.5"
    """0 to 4: blocks. 5: banks of eight and a wide one. 6, 7: all narrow ones on, off, and a mask of the wide ones."""
    BLOCKS = "2.9.5"
    """0 to 5: blocks. 6: all."""


def mask_table(region: Region) -> MaskTable:
    """Which table a region has."""
    if not region.fixed:
        return MaskTable.DYNAMIC
    return MaskTable.WIDE if len(region.channels) > 1 else MaskTable.BLOCKS


def mask_requests(region: Region, enabled: frozenset[int], *, has_banks: bool = True) -> tuple[tuple[int, int], ...]:
    """(ChMaskCntl, ChMask) of the fewest LinkADRReq that leave exactly these channels on, whatever was on before.

    `has_banks`: the device knows ChMaskCntl 5, which came with 1.0.3. Raises ValueError for no channel at all, or for
    one that the region cannot have.
    """
    if not enabled or not all(0 <= channel < region.max_channels for channel in enabled):
        raise ValueError(f"{region.name} has the channels 0 to {region.max_channels - 1}, and one at least is on")
    wanted = sum(1 << channel for channel in enabled)
    table = mask_table(region)
    if table is MaskTable.DYNAMIC:
        return ((0, wanted),)
    starts = _wide_starts(wanted, has_banks=has_banks) if table is MaskTable.WIDE else [(_ALL, 0)]
    blocks = [(cntl, _block(wanted, cntl)) for cntl in range(-(-region.max_channels // _BLOCK))]
    candidates = [tuple(blocks)]
    for start in starts:
        state = _start(region, *start)
        candidates.append((start, *(block for block in blocks if _block(state, block[0]) != block[1])))
    return min(candidates, key=len)


def apply_masks(
    region: Region, current: frozenset[int], masks: Iterable[tuple[int, int]], known: frozenset[int]
) -> frozenset[int] | None:
    """The channels that are on after a block of LinkADRReq, as a device sees it; None when it must refuse.

    `known`: every channel the device has. An unknown channel, a reserved ChMaskCntl and no channel at all are refused.
    """
    table = mask_table(region)
    state = sum(1 << channel for channel in current)
    everything = sum(1 << channel for channel in known)
    for cntl, mask in masks:
        if table is MaskTable.WIDE and cntl in (_WIDE_ONLY, _BANKS, _ALL, _NO_NARROW):
            state = _set(cntl, mask & _WIDE, state)
        elif table is not MaskTable.WIDE and cntl == _ALL:
            state = everything
        elif cntl * _BLOCK < region.max_channels:
            state = state & ~(0xFFFF << cntl * _BLOCK) | mask << cntl * _BLOCK
        else:
            return None
    if not state or state & ~everything:
        return None
    return frozenset(channel for channel in range(region.max_channels) if state >> channel & 1)


def _block(channels: int, cntl: int) -> int:
    """The sixteen channels that this ChMaskCntl is about."""
    return channels >> cntl * _BLOCK & 0xFFFF


def _wide_starts(wanted: int, *, has_banks: bool) -> list[tuple[int, int]]:
    """The first requests for US915 and AU915 that can be a way to few: none is better than the best of these."""
    wide = wanted >> 64
    starts = [(_ALL, wide), (_NO_NARROW, wide)]
    if has_banks:
        # Either the wide ones are right at once, or as many narrow ones as possible.
        full = sum(1 << bank for bank in range(8) if wanted >> 8 * bank & _BANK == _BANK)
        starts += [(_BANKS, wide), (_BANKS, full)]
    return starts


def _start(region: Region, cntl: int, mask: int) -> int:
    """What a first request leaves on, where it does not depend on what was on before."""
    return _set(cntl, mask, 0) if mask_table(region) is MaskTable.WIDE else (1 << region.max_channels) - 1


def _set(cntl: int, mask: int, channels: int) -> int:
    """What ChMaskCntl 4 to 7 of US915 and AU915 leave on."""
    narrow = channels & _NARROW
    if cntl == _BANKS:
        narrow = sum(_BANK << 8 * bank for bank in range(8) if mask >> bank & 1)
    elif cntl != _WIDE_ONLY:
        narrow = _NARROW if cntl == _ALL else 0
    return narrow | mask << 64

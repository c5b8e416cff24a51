"""Frames in bulk with their identity, and the account of what was delivered of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from lorabridge.simulation import load
from lorabridge.simulation.cast import device_table
from tests.e2e.harness import wait_until

Identity = tuple[str, int]
"""DevEUI in hex and the full counter."""


class Frame(msgspec.Struct, frozen=True):
    """One uplink of a virtual device."""

    identity: Identity
    plain: bytes
    rest: bytes
    """Its `rxpk` from behind `tmst` on."""

    def rxpk(self, tmst: int) -> bytes:
        """As a gateway reports it whose counter stands at `tmst`; a number of its own for each sending."""
        return b'{"jver":1,"tmst":%d%b' % (tmst, self.rest)


def device_file(n_devices: int) -> str:
    """The devices of `frames`, as an operator writes them."""
    return "".join(device_table(device) for device in load.devices(n_devices))


def frames(n_devices: int, n_frames: int, seed: int) -> Iterator[Frame]:
    """Fresh frames, the devices taking turns, their counters from 0."""
    devices = load.devices(n_devices)
    sent = zip(load.frames(n_devices, n_frames, seed), load.payloads(n_frames, seed), strict=True)
    for n, (rxpk, plain) in enumerate(sent):
        turn, who = divmod(n, n_devices)
        yield Frame((str(devices[who].dev_eui), turn), plain, rxpk[rxpk.index(b',"chan"') :])


class _Device(msgspec.Struct):
    dev_eui: str


class _Rx(msgspec.Struct):
    tmst: int


class _Uplink(msgspec.Struct):
    id: str
    device: _Device
    fcnt32: int
    payload: bytes
    rx: list[_Rx]


_DECODER = msgspec.json.Decoder(_Uplink)


class Account:
    """What arrived, by identity. A record may arrive again, byte for byte; a second record of a frame may not."""

    def __init__(self, published: Sequence[tuple[str, bytes]]) -> None:
        self._published = published
        self._read = 0
        self._records: dict[Identity, bytes] = {}
        self._ids: dict[str, Identity] = {}
        self.order: list[Identity] = []
        """Of first arrivals."""
        self.accepted_by: dict[Identity, int] = {}
        """The `tmst`, and so the sending, of the frame that was accepted."""
        self.plain: dict[Identity, bytes] = {}
        self.again: Counter[Identity] = Counter()

    def __contains__(self, identity: object) -> bool:
        self.read()
        return identity in self._records

    def __len__(self) -> int:
        self.read()
        return len(self._records)

    def read(self) -> None:
        """Take in what arrived since."""
        end = len(self._published)
        for n in range(self._read, end):
            topic, payload = self._published[n]
            if "/uplink/" in topic:
                self._note(payload)
        self._read = end

    def _note(self, payload: bytes) -> None:
        uplink = _DECODER.decode(payload)
        identity = (uplink.device.dev_eui, uplink.fcnt32)
        known = self._records.setdefault(identity, payload)
        if known is not payload:
            assert known == payload, f"{identity} was accepted twice:\n{known!r}\n{payload!r}"
            self.again[identity] += 1
            return
        assert self._ids.setdefault(uplink.id, identity) == identity, f"{uplink.id} names two frames"
        self.order.append(identity)
        self.accepted_by[identity] = uplink.rx[0].tmst
        self.plain[identity] = uplink.payload

    def wait_for_more(self) -> None:
        """Until something arrives that had not."""
        arrived = len(self)
        wait_until(lambda: len(self) > arrived, "something more arrives")

    def assert_complete(self, sent: Sequence[Frame]) -> None:
        """Every frame arrived, decrypted to what its device said, and nothing else did."""
        self.read()
        missing = [frame.identity for frame in sent if frame.identity not in self._records]
        assert not missing, f"{len(missing)} of {len(sent)} frames are lost: {missing[:10]}"
        wrong = [frame.identity for frame in sent if self.plain[frame.identity] != frame.plain]
        assert not wrong, f"decrypted to something else: {wrong[:10]}"
        assert len(self._records) == len(sent)


def tell(**facts: Any) -> None:
    """What a run measured, for whoever runs the tests with -s or looks at one that failed."""
    sys.stdout.write(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()) + "\n")

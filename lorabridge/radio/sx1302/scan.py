"""The background spectral scan: one channel after the other, and only while nothing is being sent.

The SX1261 that measures is the radio of listen-before-talk too; a transmission has it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lorabridge.radio.sx1302.library import Library, LibraryError
from lorabridge.radio.sx1302.plan import SCAN_STEP_HZ, SpectralScan
from lorabridge.radio.sx1302.wire import Scanned

LIMIT: Final = 2.0
"""Seconds after which a scan that is not complete is given up, as in the vendor's forwarder."""


class Scanner:
    """Takes one step at a time, so that it never holds anybody up. Moments are monotonic seconds."""

    def __init__(self, library: Library, conf: SpectralScan, rf_chains: Sequence[int]) -> None:
        """`rf_chains`: those that transmit."""
        self._library = library
        self._conf = conf
        self._rf_chains = rf_chains
        self._channel = 0
        self._begun: float | None = None
        self._next = 0.0
        self.failed = 0
        """Scans without a result, since the start."""

    def step(self, now: float, *, is_quiet: bool) -> Scanned | None:
        """Go on: the result of a scan that is complete. `is_quiet`: no frame waits for its moment."""
        if not self._conf.enable:
            return None
        try:
            if self._begun is not None:
                return self._look(now, self._begun)
            if now >= self._next and is_quiet and not any(map(self._library.is_sending, self._rf_chains)):
                self._library.start_scan(self._frequency_hz, self._conf.nb_scan)
                self._begun = now
        except LibraryError:
            self._give_up(now)
        return None

    def interrupt(self, now: float) -> None:
        """A frame is about to be sent, which would be measured."""
        if self._begun is not None:
            self._begun = None
            self._next = now
            try:
                self._library.abort_scan()
            except LibraryError:
                self.failed += 1

    @property
    def _frequency_hz(self) -> int:
        return self._conf.freq_start + self._channel * SCAN_STEP_HZ

    def _look(self, now: float, begun: float) -> Scanned | None:
        levels = self._library.scan_result()
        if levels is None:
            if now - begun > LIMIT:
                self._give_up(now)
            return None
        scanned = Scanned(self._frequency_hz, levels)
        self._turn(now)
        return scanned

    def _give_up(self, now: float) -> None:
        self.failed += 1
        self._turn(now)

    def _turn(self, now: float) -> None:
        """To the next channel, after the pause."""
        self._begun = None
        self._channel = (self._channel + 1) % max(1, self._conf.nb_chan)
        self._next = now + max(1, self._conf.pace_s)

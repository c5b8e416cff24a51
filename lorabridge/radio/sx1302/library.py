"""`libloragw` through ctypes. Only the child process loads it: it blocks, prints and crashes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Final

from lorabridge.radio.sx1302 import abi
from lorabridge.radio.sx1302.plan import Channel, Plan, Radio, Sx1261
from lorabridge.radio.sx1302.wire import Order, Packet

FETCH_LIMIT: Final = 16
"""Frames of one `lgw_receive`."""
_RSSI_LIMIT: Final = 1000.0


class LibraryRefusedError(Exception):
    """Not a library that these structures fit: (what, hint)."""


class LibraryError(Exception):
    """A call of the library failed."""


_CALLS: Final = {
    "lgw_board_setconf": (ctypes.POINTER(abi.Board),),
    "lgw_rxrf_setconf": (ctypes.c_uint8, ctypes.POINTER(abi.RxRf)),
    "lgw_rxif_setconf": (ctypes.c_uint8, ctypes.POINTER(abi.RxIf)),
    "lgw_demod_setconf": (ctypes.POINTER(abi.Demod),),
    "lgw_txgain_setconf": (ctypes.c_uint8, ctypes.POINTER(abi.TxGainLut)),
    "lgw_ftime_setconf": (ctypes.POINTER(abi.Ftime),),
    "lgw_sx1261_setconf": (ctypes.POINTER(abi.Sx1261),),
    "lgw_start": (),
    "lgw_stop": (),
    "lgw_receive": (ctypes.c_uint8, ctypes.POINTER(abi.PktRx)),
    "lgw_send": (ctypes.POINTER(abi.PktTx),),
    "lgw_status": (ctypes.c_uint8, ctypes.c_uint8, ctypes.POINTER(ctypes.c_uint8)),
    "lgw_get_instcnt": (ctypes.POINTER(ctypes.c_uint32),),
    "lgw_get_trigcnt": (ctypes.POINTER(ctypes.c_uint32),),
    "lgw_get_eui": (ctypes.POINTER(ctypes.c_uint64),),
    "lgw_get_temperature": (ctypes.POINTER(ctypes.c_float),),
    "lgw_time_on_air": (ctypes.POINTER(abi.PktTx),),
    "lgw_spectral_scan_start": (ctypes.c_uint32, ctypes.c_uint16),
    "lgw_spectral_scan_get_status": (ctypes.POINTER(ctypes.c_int),),
    "lgw_spectral_scan_get_results": (ctypes.POINTER(abi.ScanLevels), ctypes.POINTER(abi.ScanCounts)),
    "lgw_spectral_scan_abort": (),
}


class Library:
    """One loaded `libloragw`. Every method but the constructor raises LibraryError when the library says no."""

    def __init__(self, path: str) -> None:
        """Load and check. Raises LibraryRefusedError."""
        hint = f"build libloragw.so of sx1302_hal {abi.VERSION}: see docs/sx1302.md"
        try:
            self._lib = ctypes.CDLL(path)
            version = self._lib.lgw_version_info
        except (OSError, AttributeError) as error:
            raise LibraryRefusedError(f"{path} is no libloragw: {error}", hint) from None
        version.restype = ctypes.c_char_p
        told = (version() or b"")[:100].decode("ascii", "replace").strip()
        if told.removeprefix("Version:").rstrip(";").strip() != abi.VERSION:
            raise LibraryRefusedError(f"{path} says {told!r}; only version {abi.VERSION} is understood", hint)
        for name, arguments in _CALLS.items():
            call = getattr(self._lib, name, None)
            if call is None:
                raise LibraryRefusedError(f"{path} has no {name}", hint)
            call.argtypes, call.restype = arguments, ctypes.c_int
        self._lib.lgw_time_on_air.restype = ctypes.c_uint32
        self._fetched = (abi.PktRx * FETCH_LIMIT)()
        self.malformed = 0
        """Frames that the library gave and that cannot be."""

    def configure(self, plan: Plan) -> None:
        """Everything before `start`."""
        board = abi.Board(
            lorawan_public=plan.lorawan_public,
            clksrc=plan.clksrc,
            full_duplex=plan.full_duplex,
            com_type=abi.COM_TYPES[plan.com_type],
            com_path=plan.com_path.encode(),
        )
        self._call("lgw_board_setconf", board)
        for number, radio in enumerate(plan.radios):
            self._call("lgw_rxrf_setconf", number, _rx_rf(radio))
            if radio.enable and radio.tx_enable:
                self._call("lgw_txgain_setconf", number, _gain_table(radio))
        bits = sum(1 << (sf - 5) for sf in set(plan.chan_multiSF_All.spreading_factor_enable))
        self._call("lgw_demod_setconf", abi.Demod(multisf_datarate=bits))
        for number, channel in enumerate((*plan.multi_sf, plan.lora_std, plan.fsk)):
            if channel.enable:
                self._call("lgw_rxif_setconf", number, _rx_if(number, channel))
        if plan.fine_timestamp.enable:
            self._call("lgw_ftime_setconf", abi.Ftime(enable=True, mode=abi.FTIME_MODES[plan.fine_timestamp.mode]))
        if plan.sx1261_conf.is_needed:
            self._call("lgw_sx1261_setconf", _sx1261(plan.sx1261_conf))

    def start(self) -> int:
        """Start the concentrator: its EUI."""
        self._call("lgw_start")
        eui = ctypes.c_uint64()
        self._call("lgw_get_eui", eui)
        return eui.value

    def stop(self) -> None:
        """Stop the concentrator."""
        self._call("lgw_stop")

    def receive(self) -> list[Packet]:
        """Every frame that waits, oldest first, up to FETCH_LIMIT."""
        count: int = self._lib.lgw_receive(FETCH_LIMIT, self._fetched)
        if not 0 <= count <= FETCH_LIMIT:
            raise LibraryError(f"lgw_receive returned {count}")
        packets = [_packet(raw) for raw in self._fetched[:count]]
        good = [packet for packet in packets if packet is not None]
        self.malformed += count - len(good)
        return good

    def send(self, order: Order) -> bool:
        """Give a frame to the concentrator; False when listen-before-talk forbids it."""
        answer: int = self._lib.lgw_send(_pkt_tx(order))
        if answer == abi.LBT_NOT_ALLOWED:
            return False
        if answer != 0:
            raise LibraryError(f"lgw_send returned {answer}")
        return True

    def is_sending(self, rf_chain: int) -> bool:
        """Whether the chain is taken by a frame that waits or is on the air."""
        code = ctypes.c_uint8()
        self._call("lgw_status", rf_chain, abi.SELECT_TX, code)
        return code.value in (abi.TX_SCHEDULED, abi.TX_EMITTING)

    def counter(self) -> int:
        """The concentrator's counter now: us, 32 bits."""
        value = ctypes.c_uint32()
        self._call("lgw_get_instcnt", value)
        return value.value

    def pulse(self) -> int:
        """The counter at the last PPS: us, 32 bits; 0 when there was none."""
        value = ctypes.c_uint32()
        self._call("lgw_get_trigcnt", value)
        return value.value

    def temperature(self) -> float:
        """Degrees Celsius of the board's sensor."""
        value = ctypes.c_float()
        self._call("lgw_get_temperature", value)
        if not -_RSSI_LIMIT <= value.value <= _RSSI_LIMIT:
            raise LibraryError(f"lgw_get_temperature gave {value.value}")
        return value.value

    def airtime_us(self, order: Order) -> int:
        """Time on air, as the library reckons it (it knows whole milliseconds)."""
        return int(self._lib.lgw_time_on_air(_pkt_tx(order))) * 1000

    def start_scan(self, frequency_hz: int, measurements: int) -> None:
        """Let the SX1261 measure one channel; LBT uses the same radio and ends it."""
        self._call("lgw_spectral_scan_start", frequency_hz, measurements)

    def scan_result(self) -> list[tuple[int, int]] | None:
        """(dBm, how many measurements) of each level once the scan is complete, None before."""
        status = ctypes.c_int()
        self._call("lgw_spectral_scan_get_status", status)
        if status.value != abi.SCAN_COMPLETED:
            return None
        levels, counts = abi.ScanLevels(), abi.ScanCounts()
        self._call("lgw_spectral_scan_get_results", levels, counts)
        return list(zip(levels, counts, strict=True))

    def abort_scan(self) -> None:
        """Leave the SX1261 to others."""
        self._call("lgw_spectral_scan_abort")

    def _call(self, name: str, *arguments: object) -> None:
        passed = [ctypes.byref(one) if isinstance(one, _BY_REFERENCE) else one for one in arguments]
        answer: int = getattr(self._lib, name)(*passed)
        if answer != 0:
            raise LibraryError(f"{name} returned {answer}")


_BY_REFERENCE = (
    ctypes.Structure,
    ctypes.Array,
    ctypes.c_uint8,
    ctypes.c_int,
    ctypes.c_uint32,
    ctypes.c_uint64,
    ctypes.c_float,
)


def _rx_rf(radio: Radio) -> abi.RxRf:
    tcomp = radio.rssi_tcomp
    return abi.RxRf(
        enable=radio.enable,
        freq_hz=radio.freq,
        rssi_offset=radio.rssi_offset,
        rssi_tcomp=abi.RssiTcomp(tcomp.coeff_a, tcomp.coeff_b, tcomp.coeff_c, tcomp.coeff_d, tcomp.coeff_e),
        type=abi.RADIO_TYPES[radio.type],
        tx_enable=radio.tx_enable,
        single_input_mode=radio.single_input_mode,
    )


def _gain_table(radio: Radio) -> abi.TxGainLut:
    table = abi.TxGainLut(size=len(radio.tx_gain_lut))
    for entry, gain in zip(table.lut, sorted(radio.tx_gain_lut, key=lambda one: one.rf_power), strict=False):
        entry.rf_power, entry.pa_gain, entry.pwr_idx = gain.rf_power, gain.pa_gain, gain.pwr_idx
        entry.dig_gain, entry.dac_gain, entry.mix_gain = gain.dig_gain, gain.dac_gain, gain.mix_gain
    return table


def _rx_if(number: int, channel: Channel) -> abi.RxIf:
    conf = abi.RxIf(enable=True, rf_chain=channel.radio, freq_hz=channel.offset)
    if number >= abi.LORA_STD_CHAIN:
        conf.bandwidth = abi.BANDWIDTHS[channel.bandwidth]
    if number == abi.FSK_CHAIN:
        conf.datarate = channel.datarate
    elif number == abi.LORA_STD_CHAIN:
        conf.datarate = channel.spread_factor or 0
        conf.implicit_hdr = channel.implicit_hdr
        conf.implicit_payload_length = channel.implicit_payload_length
        conf.implicit_crc_en = channel.implicit_crc_en
        conf.implicit_coderate = channel.implicit_coderate
    return conf


def _sx1261(conf: Sx1261) -> abi.Sx1261:
    lbt = abi.Lbt(enable=conf.lbt.enable, rssi_target=conf.lbt.rssi_target, nb_channel=len(conf.lbt.channels))
    for entry, channel in zip(lbt.channels, conf.lbt.channels, strict=False):
        entry.freq_hz, entry.bandwidth = channel.freq_hz, abi.BANDWIDTHS[channel.bandwidth]
        entry.scan_time_us, entry.transmit_time_ms = channel.scan_time_us, channel.transmit_time_ms
    return abi.Sx1261(enable=True, spi_path=conf.spi_path.encode(), rssi_offset=conf.rssi_offset, lbt_conf=lbt)


def _pkt_tx(order: Order) -> abi.PktTx:
    raw = abi.PktTx(
        freq_hz=order.frequency_hz,
        tx_mode=abi.TX_IMMEDIATE if order.count_us is None else abi.TX_TIMESTAMPED,
        count_us=order.count_us or 0,
        rf_chain=order.rf_chain,
        rf_power=order.power_dbm,
        modulation=order.modulation,
        bandwidth=order.bandwidth,
        datarate=order.data_rate,
        coderate=order.code_rate,
        invert_pol=order.invert,
        f_dev=order.deviation_khz,
        preamble=order.preamble,
        no_crc=not order.crc,
        size=len(order.payload),
    )
    raw.payload[: len(order.payload)] = order.payload
    return raw


def _packet(raw: abi.PktRx) -> Packet | None:
    """A frame of the library, or None when its values cannot be."""
    levels: Sequence[float] = (raw.rssic, raw.rssis, raw.snr)
    if raw.size > abi.MAX_PAYLOAD or not all(math.isfinite(one) and abs(one) <= _RSSI_LIMIT for one in levels):
        return None
    return Packet(
        payload=bytes(raw.payload[: raw.size]),
        frequency_hz=raw.freq_hz,
        frequency_offset_hz=raw.freq_offset,
        if_chain=raw.if_chain,
        rf_chain=raw.rf_chain,
        modem=raw.modem_id,
        status=raw.status,
        count_us=raw.count_us,
        modulation=raw.modulation,
        bandwidth=raw.bandwidth,
        data_rate=raw.datarate,
        code_rate=raw.coderate,
        rssi_dbm=raw.rssic,
        signal_rssi_dbm=raw.rssis,
        snr_db=raw.snr,
        fine_time_ns=raw.ftime if raw.ftime_received and raw.ftime < 1_000_000_000 else None,
    )

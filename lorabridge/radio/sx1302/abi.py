"""The structures and constants of `libloragw`, as sx1302_hal 2.1.0 lays them out (loragw_hal.h).

C enums are `int`, `bool` is one byte and alignment is natural; that is so on x86-64, aarch64 and armhf.
"""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar, Final

VERSION: Final = "2.1.0"
"""The only release whose layouts these are."""

RF_CHAINS: Final = 2
MULTI_SF_CHAINS: Final = 8
LORA_STD_CHAIN: Final = 8
FSK_CHAIN: Final = 9
GAIN_TABLE_SIZE: Final = 16
MAX_PAYLOAD: Final = 255
COM_TYPES: Final = {"SPI": 0, "USB": 1}
RADIO_TYPES: Final = {"SX1255": 1, "SX1257": 2, "SX1250": 5}
BANDWIDTHS: Final = {125_000: 4, 250_000: 5, 500_000: 6}
CODE_RATES: Final = {"4/5": 1, "4/6": 2, "4/7": 3, "4/8": 4}
FTIME_MODES: Final = {"high_capacity": 0, "all_sf": 1}
MOD_LORA: Final = 0x10
MOD_FSK: Final = 0x20
CRC_OK: Final = 0x10
CRC_BAD: Final = 0x11
TX_IMMEDIATE: Final = 0
TX_TIMESTAMPED: Final = 1
SELECT_TX: Final = 1
TX_SCHEDULED: Final = 3
TX_EMITTING: Final = 4
LBT_NOT_ALLOWED: Final = 1
LBT_CHANNELS: Final = 16
SPI_PATH_LIMIT: Final = 63
"""Bytes of the path of the SX1261."""
SCAN_LEVELS: Final = 33
"""LGW_SPECTRAL_SCAN_RESULT_SIZE: steps of 4 dB from 0 dBm down."""
SCAN_COMPLETED: Final = 3

_bool = ctypes.c_bool
_u8 = ctypes.c_uint8
_i8 = ctypes.c_int8
_u16 = ctypes.c_uint16
_u32 = ctypes.c_uint32
_i16 = ctypes.c_int16
_i32 = ctypes.c_int32
_u64 = ctypes.c_uint64
_float = ctypes.c_float
_Fields = list[tuple[str, Any]]


class Board(ctypes.Structure):
    """`struct lgw_conf_board_s`."""

    _fields_: ClassVar[_Fields] = [
        ("lorawan_public", _bool),
        ("clksrc", _u8),
        ("full_duplex", _bool),
        ("com_type", ctypes.c_int),
        ("com_path", ctypes.c_char * 64),
    ]


class RssiTcomp(ctypes.Structure):
    """`struct lgw_rssi_tcomp_s`."""

    _fields_: ClassVar[_Fields] = [(f"coeff_{letter}", _float) for letter in "abcde"]


class RxRf(ctypes.Structure):
    """`struct lgw_conf_rxrf_s`."""

    _fields_: ClassVar[_Fields] = [
        ("enable", _bool),
        ("freq_hz", _u32),
        ("rssi_offset", _float),
        ("rssi_tcomp", RssiTcomp),
        ("type", ctypes.c_int),
        ("tx_enable", _bool),
        ("single_input_mode", _bool),
    ]


class RxIf(ctypes.Structure):
    """`struct lgw_conf_rxif_s`; `freq_hz` is relative to the radio's."""

    _fields_: ClassVar[_Fields] = [
        ("enable", _bool),
        ("rf_chain", _u8),
        ("freq_hz", _i32),
        ("bandwidth", _u8),
        ("datarate", _u32),
        ("sync_word_size", _u8),
        ("sync_word", _u64),
        ("implicit_hdr", _bool),
        ("implicit_payload_length", _u8),
        ("implicit_crc_en", _bool),
        ("implicit_coderate", _u8),
    ]


class Demod(ctypes.Structure):
    """`struct lgw_conf_demod_s`: bit i is spreading factor 5 + i."""

    _fields_: ClassVar[_Fields] = [("multisf_datarate", _u8)]


class TxGain(ctypes.Structure):
    """`struct lgw_tx_gain_s`."""

    _fields_: ClassVar[_Fields] = [
        ("rf_power", _i8),
        ("dig_gain", _u8),
        ("pa_gain", _u8),
        ("dac_gain", _u8),
        ("mix_gain", _u8),
        ("offset_i", _i8),
        ("offset_q", _i8),
        ("pwr_idx", _u8),
    ]


class TxGainLut(ctypes.Structure):
    """`struct lgw_tx_gain_lut_s`."""

    _fields_: ClassVar[_Fields] = [("lut", TxGain * GAIN_TABLE_SIZE), ("size", _u8)]


class Ftime(ctypes.Structure):
    """`struct lgw_conf_ftime_s`."""

    _fields_: ClassVar[_Fields] = [("enable", _bool), ("mode", ctypes.c_int)]


class LbtChannel(ctypes.Structure):
    """`struct lgw_conf_chan_lbt_s`."""

    _fields_: ClassVar[_Fields] = [
        ("freq_hz", _u32),
        ("bandwidth", _u8),
        ("scan_time_us", ctypes.c_int),
        ("transmit_time_ms", _u16),
    ]


class Lbt(ctypes.Structure):
    """`struct lgw_conf_lbt_s`; `rssi_target` is in dBm."""

    _fields_: ClassVar[_Fields] = [
        ("enable", _bool),
        ("rssi_target", _i8),
        ("nb_channel", _u8),
        ("channels", LbtChannel * LBT_CHANNELS),
    ]


class Sx1261(ctypes.Structure):
    """`struct lgw_conf_sx1261_s`."""

    _fields_: ClassVar[_Fields] = [
        ("enable", _bool),
        ("spi_path", ctypes.c_char * 64),
        ("rssi_offset", _i8),
        ("lbt_conf", Lbt),
    ]


ScanLevels = _i16 * SCAN_LEVELS
ScanCounts = _u16 * SCAN_LEVELS


class PktRx(ctypes.Structure):
    """`struct lgw_pkt_rx_s`."""

    _fields_: ClassVar[_Fields] = [
        ("freq_hz", _u32),
        ("freq_offset", _i32),
        ("if_chain", _u8),
        ("status", _u8),
        ("count_us", _u32),
        ("rf_chain", _u8),
        ("modem_id", _u8),
        ("modulation", _u8),
        ("bandwidth", _u8),
        ("datarate", _u32),
        ("coderate", _u8),
        ("rssic", _float),
        ("rssis", _float),
        ("snr", _float),
        ("snr_min", _float),
        ("snr_max", _float),
        ("crc", _u16),
        ("size", _u16),
        ("payload", _u8 * 256),
        ("ftime_received", _bool),
        ("ftime", _u32),
    ]


class PktTx(ctypes.Structure):
    """`struct lgw_pkt_tx_s`; `f_dev` is in kHz."""

    _fields_: ClassVar[_Fields] = [
        ("freq_hz", _u32),
        ("tx_mode", _u8),
        ("count_us", _u32),
        ("rf_chain", _u8),
        ("rf_power", _i8),
        ("modulation", _u8),
        ("freq_offset", _i8),
        ("bandwidth", _u8),
        ("datarate", _u32),
        ("coderate", _u8),
        ("invert_pol", _bool),
        ("f_dev", _u8),
        ("preamble", _u16),
        ("no_crc", _bool),
        ("no_header", _bool),
        ("size", _u16),
        ("payload", _u8 * 256),
    ]

"""A channel plan for the tests of the concentrator."""

from __future__ import annotations

from typing import Any

GAINS = [{"rf_power": 12 + step, "pwr_idx": step} for step in range(16)]
PLAN: dict[str, Any] = {
    "com_type": "SPI",
    "com_path": "/dev/spidev0.0",
    "antenna_gain": 2,
    "fine_timestamp": {"enable": True, "mode": "all_sf"},
    "radio_0": {
        "enable": True,
        "type": "SX1250",
        "freq": 867500000,
        "rssi_offset": -215.4,
        "tx_enable": True,
        "tx_freq_min": 863000000,
        "tx_freq_max": 870000000,
        "tx_gain_lut": GAINS,
    },
    "radio_1": {"enable": True, "type": "SX1250", "freq": 868500000},
    "chan_multiSF_0": {"enable": True, "radio": 1, "if": -400000},
    "chan_Lora_std": {"enable": True, "radio": 1, "if": -200000, "bandwidth": 250000, "spread_factor": 7},
    "chan_FSK": {"enable": True, "radio": 1, "if": 300000, "bandwidth": 125000, "datarate": 50000},
}

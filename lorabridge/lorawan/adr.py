"""Adaptive data rate: the simple rate adaptation that Semtech recommends for network servers, and what it rests on.

Over the last 20 uplinks of a device, its best SNR is compared with what its spreading factor needs:

    margin = max(SNR) - required SNR(SF) - installation margin      NStep = margin / 3, towards zero

    NStep > 0   for each step one data rate more, up to the region's greatest for ADR; then one TXPower index more
    NStep < 0   for each step one TXPower index less, down to 0, which is full power
    NbTrans     by the share of uplinks lost, from what it was (`_NB_TRANS`)

The data rate is never lowered: a device that loses the network does that itself (ADRACKReq, TS001-1.0.4 §4.3.1.1), and
every change starts the 20 uplinks anew, so that it is judged by what it did.
"""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.air import DataRate, LoraDataRate
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.mac_state import MacState
from lorabridge.lorawan.regions import Region

HISTORY = 20
"""Uplinks that a decision rests on."""
STEP_DB = 3
REQUIRED_SNR_DB = {5: -2.5, 6: -5.0, 7: -7.5, 8: -10.0, 9: -12.5, 10: -15.0, 11: -17.5, 12: -20.0}
"""SNR that demodulation needs, by spreading factor (SX1276 and SX1280 data sheets)."""
_MARGINS_PER_DB, _MARGIN_ZERO = 4, 128
_LEAST_SNR_DB, _GREATEST_SNR_DB = -32.0, 31.75
"""What one byte can say."""

_NB_TRANS = ((0.05, (1, 1, 2)), (0.10, (1, 2, 3)), (0.30, (2, 3, 3)), (1.01, (3, 3, 3)))
"""Below this loss, the next NbTrans for NbTrans 1, 2 and 3."""


class Adaptation(msgspec.Struct, frozen=True):
    """What a device should send with."""

    data_rate: int
    tx_power: int
    """TXPower index."""
    nb_trans: int


def required_snr_db(data_rate: DataRate) -> float:
    """SNR that demodulation needs; 0 for what is not LoRa."""
    return REQUIRED_SNR_DB.get(data_rate.spreading_factor, 0.0) if isinstance(data_rate, LoraDataRate) else 0.0


def to_margin(snr_db: float) -> int:
    """An SNR as one byte of `MacState.margins`: a quarter of a dB each, 128 is 0 dB. What is no number is the least."""
    return _MARGIN_ZERO + round(_MARGINS_PER_DB * min(_GREATEST_SNR_DB, max(_LEAST_SNR_DB, snr_db)))


def adapt(state: MacState, region: Region, policy: MacPolicy) -> Adaptation | None:
    """What ADR wants changed; None when nothing, when too little was heard, or out of the region's ADR table."""
    lowest, highest = region.adr_data_rates
    data_rate = state.data_rate
    if data_rate is None or not lowest <= data_rate <= highest or len(state.margins) < HISTORY:
        return None
    modulation = region.data_rates[data_rate]
    if not isinstance(modulation, LoraDataRate):
        return None
    snr_db = (max(state.margins) - _MARGIN_ZERO) / _MARGINS_PER_DB
    margin_db = snr_db - required_snr_db(modulation) - policy.adr_margin_db
    power = min(state.tx_power or 0, region.tx_powers - 1)
    steps = int(margin_db / STEP_DB)
    if steps < 0:
        wish = Adaptation(data_rate, max(power + steps, 0), _nb_trans(state))
    else:
        faster = min(steps, highest - data_rate)
        wish = Adaptation(data_rate + faster, min(power + steps - faster, region.tx_powers - 1), _nb_trans(state))
    return None if wish == Adaptation(data_rate, state.tx_power or 0, state.nb_trans) else wish


def _nb_trans(state: MacState) -> int:
    """NbTrans by the share of uplinks that were lost."""
    loss = state.missed / (state.missed + len(state.margins))
    column = min(max(state.nb_trans, 1), 3) - 1
    return next(row[column] for below, row in _NB_TRANS if loss < below)

"""The closed lists: what can be said of a frame, and what can be wrong with its form.

A verdict is at once the return value, the metric label, the log field, the security event and the
assertion of the test. `docs/verdicts.md` is generated from this file.
"""

from __future__ import annotations

from lorabridge.lorawan.documented import Documented


class Verdict(Documented):
    """What was proved of one received frame."""

    ACCEPTED = (
        "accepted",
        "The MIC verified under a session of ours and the counter is new: forwarded, once.",
    )
    DUPLICATE = (
        "duplicate",
        "A frame just accepted, heard by another antenna or gateway inside the window: only metadata is forwarded.",
    )
    RETRANSMISSION = (
        "retransmission",
        "The frame just accepted, sent again by the device: verified, not forwarded again.",
    )
    REPLAY = (
        "replay",
        "The MIC verifies under a counter that was already used: an old frame was sent again. Refused.",
    )
    COUNTER_RESET = (
        "counter_reset",
        "The MIC verifies under a counter restarted from a low value. Refused, or held, as counter_policy says.",
    )
    COUNTER_GAP = (
        "counter_gap",
        "The MIC verifies, but more frames were skipped than MAX_FCNT_GAP of the device's version allows. Refused.",
    )
    BAD_MIC = (
        "bad_mic",
        "The address is ours, but the MIC verifies under no session key and counter tried. Refused.",
    )
    UNKNOWN_DEVICE = (
        "unknown_device",
        "The address could be one of our network, but no device has it. Refused.",
    )
    FOREIGN = (
        "foreign",
        "The address belongs to another network. Refused.",
    )
    JOIN_REQUEST = (
        "join_request",
        "A join-request or rejoin-request whose MIC verified under a new nonce: answered, unless we only listen.",
    )
    JOIN_REPLAY = (
        "join_replay",
        "A join-request or rejoin-request whose MIC verified under a nonce that was used before. Refused.",
    )
    JOIN_REFUSED = (
        "join_refused",
        "A join-request or rejoin-request whose MIC verified and that cannot be answered; the detail says why.",
    )
    MALFORMED = (
        "malformed",
        "The bytes are no LoRaWAN frame; the reason says why. Refused.",
    )
    WRONG_DIRECTION = (
        "wrong_direction",
        "A downlink heard on the air: another gateway's, or an attempt to pass one off as an uplink. Refused.",
    )
    PROPRIETARY = (
        "proprietary",
        "A frame of the proprietary type: nothing in it can be proved. Refused.",
    )
    RADIO_CRC = (
        "radio_crc",
        "The radio's own CRC failed or was absent: noise, or a damaged frame. Refused before anything is read.",
    )


class Reason(Documented):
    """What is wrong with the form of a malformed frame; the first that applies."""

    TOO_SHORT = (
        "too_short",
        "Fewer bytes than the message type has at least: 5 for any frame, 12 for a data frame.",
    )
    TOO_LONG = (
        "too_long",
        "More than 255 bytes: longer than a LoRa PHY payload can be.",
    )
    BAD_MAJOR = (
        "bad_major",
        "The Major bits of MHDR are not 0 (LoRaWAN R1).",
    )
    RFU_MTYPE = (
        "rfu_mtype",
        "MType 110 is reserved in the version the device speaks: rejoin-request exists from 1.1 on.",
    )
    WRONG_DIRECTION = (
        "wrong_direction",
        "The message type does not travel in the direction it was said to travel.",
    )
    BAD_JOIN_REQUEST_LENGTH = (
        "bad_join_request_length",
        "A join-request is 23 bytes.",
    )
    BAD_JOIN_ACCEPT_LENGTH = (
        "bad_join_accept_length",
        "A join-accept is 17 bytes, or 33 with a CFList.",
    )
    BAD_REJOIN_TYPE = (
        "bad_rejoin_type",
        "The rejoin type is not 0, 1 or 2.",
    )
    BAD_REJOIN_LENGTH = (
        "bad_rejoin_length",
        "A rejoin-request is 19 bytes (types 0 and 2) or 24 bytes (type 1).",
    )
    FOPTS_OVERFLOW = (
        "fopts_overflow",
        "FOptsLen points beyond the end of the frame.",
    )
    FPORT0_WITH_FOPTS = (
        "fport0_with_fopts",
        "FPort 0 and FOpts in one frame: MAC commands may stand in one place only.",
    )

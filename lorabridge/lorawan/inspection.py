"""All that can be said of one frame with what is known about it: the answer of `lorabridge decode`.

Nothing here decides whether a frame is taken; that is the engine's. `mic_valid` is None for "cannot be
said with what is known", never a guess. The names of the answer are a contract: docs/decode.md.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lorabridge.lorawan import crypto
from lorabridge.lorawan.crypto import MicContext, PreparedKey, mic_equal
from lorabridge.lorawan.frame import DataFrame, JoinAccept, JoinAcceptBody, JoinRequest, RejoinRequest, parse
from lorabridge.lorawan.grammar import MType
from lorabridge.lorawan.session import counter_candidates
from lorabridge.lorawan.types import EUI64, AES128Key, Direction, FCnt32, MacVersion

AFTER_JOIN_REQUEST = 0xFF
"""JoinReqType of a join-accept that answers a join-request (TS001-1.1 §6.2.3)."""


class KnownKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys by their specification names; None where not known."""

    nwk_s_key: AES128Key | None = None
    app_s_key: AES128Key | None = None
    f_nwk_s_int_key: AES128Key | None = None
    s_nwk_s_int_key: AES128Key | None = None
    nwk_s_enc_key: AES128Key | None = None
    app_key: AES128Key | None = None
    nwk_key: AES128Key | None = None
    js_int_key: AES128Key | None = None
    js_enc_key: AES128Key | None = None


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a frame beside its bytes; None where not known."""

    keys: KnownKeys = KnownKeys()
    mac_version: MacVersion | None = None
    direction: Direction | None = None
    fcnt32: FCnt32 | None = None
    last_fcnt32: FCnt32 | None = None
    """The last accepted counter, to reconstruct from."""
    conf_fcnt: int | None = None
    tx_dr: int | None = None
    tx_ch: int | None = None
    f_opts_encrypted: bool = True
    """Of 1.1 only; False for the frames of stacks that leave FOpts in the clear."""
    join_eui: EUI64 | None = None
    dev_eui: EUI64 | None = None
    dev_nonce: int | None = None
    """Or the RJcount of the rejoin-request that a join-accept answers."""
    join_req_type: int = AFTER_JOIN_REQUEST

    @property
    def speaks_1_1(self) -> bool | None:
        """Whether the rules of 1.1 apply: as `mac_version` says, else as the keys tell, else None."""
        if self.mac_version is not None:
            return self.mac_version.is_1_1
        keys = self.keys
        if keys.f_nwk_s_int_key or keys.s_nwk_s_int_key or keys.nwk_s_enc_key:
            return True
        if keys.nwk_s_key:
            return False
        if keys.nwk_key or keys.js_int_key or keys.js_enc_key:
            return True
        return False if keys.app_key else None


_Check = tuple[bool | None, str]
"""Whether a MIC is valid, and why that cannot be said."""
_VALID: _Check = (True, "")
_INVALID: _Check = (False, "")


def inspect(phy_payload: bytes, known: Known) -> dict[str, Any]:
    """Every field of a frame, as plain JSON values: hex in lower case, addresses and EUIs most significant first.

    Raises MalformedFrame.
    """
    rejoin_exists = known.mac_version is None or known.mac_version.is_1_1
    frame = parse(phy_payload, direction=known.direction, rejoin_exists=rejoin_exists)
    answer: dict[str, Any] = {"m_type": MType(frame.mhdr >> 5).name.lower(), "major": frame.mhdr & 0x03}
    match frame:
        case DataFrame():
            answer |= _data(frame, known)
        case JoinRequest():
            answer |= _join_request(frame, known, phy_payload)
        case RejoinRequest():
            answer |= _rejoin_request(frame, known, phy_payload)
        case JoinAccept():
            answer |= _join_accept(frame, known)
        case _:
            answer |= {"payload": frame.payload.hex(), **_mic(None, (None, "a proprietary frame has no known form"))}
    return answer


def _mic(mic: bytes | None, check: _Check) -> dict[str, Any]:
    """The fields of a MIC; `mic_detail` stands only where `mic_valid` is null."""
    valid, detail = check
    fields: dict[str, Any] = {"mic": None if mic is None else mic.hex(), "mic_valid": valid}
    return fields | ({"mic_detail": detail} if valid is None else {})


def _data(frame: DataFrame, known: Known) -> dict[str, Any]:
    flags = frame.flags
    f_ctrl: dict[str, Any] = {"adr": flags.adr, "ack": flags.ack, "f_opts_len": flags.f_opts_len}
    if frame.direction is Direction.UP:
        f_ctrl |= {"adr_ack_req": flags.adr_ack_req, "class_b": flags.class_b}
    else:
        f_ctrl |= {"f_pending": flags.f_pending}
    fcnt32, check = _counter(frame, known)
    f_opts = _f_opts(frame, known, fcnt32)
    frm_payload = _frm_payload(frame, known, fcnt32)
    return {
        "dev_addr": str(frame.dev_addr),
        "f_ctrl": f_ctrl,
        "fcnt16": frame.fcnt16,
        "fcnt32": fcnt32,
        "f_opts": frame.f_opts.hex(),
        "f_opts_decrypted": None if f_opts is None else f_opts.hex(),
        "f_port": frame.f_port,
        "frm_payload": frame.frm_payload.hex(),
        "frm_payload_decrypted": None if frm_payload is None else frm_payload.hex(),
        **_mic(frame.mic, check),
    }


def _counter(frame: DataFrame, known: Known) -> tuple[FCnt32, _Check]:
    """The whole counter, and the MIC under it: as told, else as the MIC proves, else the likeliest."""
    if known.fcnt32 is not None:
        check = _data_mic(frame, known, known.fcnt32)
        # A receiver never pairs a counter with other low bits than those on the air, whatever the CMAC says.
        contradicts = known.fcnt32 & 0xFFFF != frame.fcnt16
        return known.fcnt32, _INVALID if contradicts and check[0] is not None else check
    if known.last_fcnt32 is None:
        counters: tuple[FCnt32, ...] = (FCnt32(frame.fcnt16),)
    else:
        counters = counter_candidates(known.last_fcnt32, frame.fcnt16)
    checks = [(counter, _data_mic(frame, known, counter)) for counter in counters]
    rank = {True: 0, None: 1, False: 2}
    return min(checks, key=lambda found: rank[found[1][0]])


def _data_mic(frame: DataFrame, known: Known, fcnt32: FCnt32) -> _Check:
    """MIC of a data frame under one counter."""
    match known.speaks_1_1, frame.direction:
        case None, _:
            return None, "neither mac_version nor a network session key is given"
        case True, Direction.UP:
            return _up_mic_1_1(frame, known, fcnt32)
        case True, Direction.DOWN:
            return _down_mic_1_1(frame, known, fcnt32)
    key = known.keys.nwk_s_key or known.keys.f_nwk_s_int_key
    if key is None:
        return None, "nwk_s_key is not given"
    expected = crypto.data_mic(PreparedKey(key), frame.message, frame.direction, frame.dev_addr, fcnt32)
    return _VALID if mic_equal(expected, frame.mic) else _INVALID


def _down_mic_1_1(frame: DataFrame, known: Known, fcnt32: FCnt32) -> _Check:
    key = known.keys.s_nwk_s_int_key
    if key is None:
        return None, "s_nwk_s_int_key is not given"
    context = MicContext(conf_fcnt=_conf_fcnt(frame, known))
    expected = crypto.data_mic(PreparedKey(key), frame.message, Direction.DOWN, frame.dev_addr, fcnt32, context)
    return _VALID if mic_equal(expected, frame.mic) else _wrong_unless(_assumed(frame, known))


def _up_mic_1_1(frame: DataFrame, known: Known, fcnt32: FCnt32) -> _Check:
    """cmacS[0..1] | cmacF[0..1] (TS001-1.1 §4.4): a wrong half proves a wrong MIC, a right half proves nothing."""
    f_key, s_key = known.keys.f_nwk_s_int_key, known.keys.s_nwk_s_int_key
    if f_key is not None:
        expected = crypto.data_mic(PreparedKey(f_key), frame.message, Direction.UP, frame.dev_addr, fcnt32)
        if not mic_equal(expected[:2], frame.mic[2:]):
            return _INVALID
    if s_key is None:
        half = "; the half under f_nwk_s_int_key is valid" if f_key else ""
        return None, f"s_nwk_s_int_key is not given{half}"
    context = MicContext(_conf_fcnt(frame, known), known.tx_dr or 0, known.tx_ch or 0)
    expected = crypto.data_mic(PreparedKey(s_key), frame.message, Direction.UP, frame.dev_addr, fcnt32, context)
    if not mic_equal(expected[:2], frame.mic[:2]):
        return _wrong_unless(_assumed(frame, known))
    return _VALID if f_key else (None, "f_nwk_s_int_key is not given; the half under s_nwk_s_int_key is valid")


def _conf_fcnt(frame: DataFrame, known: Known) -> int:
    """ConfFCnt enters the MIC only of a frame that acknowledges (TS001-1.1 §4.4)."""
    return known.conf_fcnt or 0 if frame.flags.ack else 0


def _assumed(frame: DataFrame, known: Known) -> list[str]:
    """What enters the MIC and was taken as 0 because it is not given."""
    enters = {"conf_fcnt": (known.conf_fcnt, frame.flags.ack)}
    if frame.direction is Direction.UP:
        enters |= {"tx_dr": (known.tx_dr, True), "tx_ch": (known.tx_ch, True)}
    return [name for name, (value, used) in enters.items() if used and value is None]


def _wrong_unless(assumed: list[str]) -> _Check:
    """A MIC that does not match is wrong only if nothing that enters it was assumed."""
    return (None, f"not valid with 0 for {', '.join(assumed)}, which is not given") if assumed else _INVALID


def _f_opts(frame: DataFrame, known: Known, fcnt32: FCnt32) -> bytes | None:
    """FOpts in the clear; None without the key, or when nothing tells whether they are encrypted."""
    if not frame.f_opts:
        return b""
    if known.speaks_1_1 is None:
        return None
    if not known.speaks_1_1 or not known.f_opts_encrypted:
        return frame.f_opts
    key = known.keys.nwk_s_enc_key
    if key is None:
        return None
    # Downlinks with an application port count with AFCntDown, all others with NFCntDown (TS001-1.1 §4.3.1.5).
    a_fcnt_down = frame.direction is Direction.DOWN and bool(frame.f_port)
    return crypto.crypt_f_opts(
        PreparedKey(key), frame.f_opts, frame.direction, frame.dev_addr, fcnt32, a_fcnt_down=a_fcnt_down
    )


def _frm_payload(frame: DataFrame, known: Known, fcnt32: FCnt32) -> bytes | None:
    """FRMPayload in the clear; None without the key, or where there is none because there is no FPort."""
    if frame.f_port is None:
        return None
    if not frame.frm_payload:
        return b""
    keys = known.keys
    key = keys.app_s_key
    if frame.f_port == 0:
        key = keys.nwk_s_enc_key if known.speaks_1_1 else keys.nwk_s_key or keys.f_nwk_s_int_key
    if key is None:
        return None
    return crypto.crypt_frm_payload(PreparedKey(key), frame.frm_payload, frame.direction, frame.dev_addr, fcnt32)


def _root_key(known: Known) -> AES128Key | None:
    """The key that signs join-requests: NwkKey of a device of 1.1, AppKey of an older one."""
    keys = known.keys
    return keys.app_key or keys.nwk_key if known.speaks_1_1 is False else keys.nwk_key or keys.app_key


def _js_key(given: AES128Key | None, known: Known, dev_eui: EUI64 | None, *, enc: bool) -> AES128Key | None:
    """JSIntKey or JSEncKey as given, else derived from NwkKey and DevEUI."""
    if given is not None or known.keys.nwk_key is None or dev_eui is None:
        return given
    derive = crypto.derive_js_enc_key if enc else crypto.derive_js_int_key
    return derive(known.keys.nwk_key, dev_eui)


def _join_check(key: AES128Key | None, missing: str, phy_payload: bytes, mic: bytes) -> _Check:
    if key is None:
        return None, f"{missing} is not given"
    return _VALID if mic_equal(crypto.join_mic(PreparedKey(key), phy_payload[: -len(mic)]), mic) else _INVALID


def _join_request(frame: JoinRequest, known: Known, phy_payload: bytes) -> dict[str, Any]:
    return {
        "join_eui": str(frame.join_eui),
        "dev_eui": str(frame.dev_eui),
        "dev_nonce": int(frame.dev_nonce),
        **_mic(frame.mic, _join_check(_root_key(known), "app_key or nwk_key", phy_payload, frame.mic)),
    }


def _rejoin_request(frame: RejoinRequest, known: Known, phy_payload: bytes) -> dict[str, Any]:
    key, missing = known.keys.s_nwk_s_int_key, "s_nwk_s_int_key"
    if frame.rejoin_type == 1:
        key, missing = _js_key(known.keys.js_int_key, known, frame.dev_eui, enc=False), "js_int_key or nwk_key"
    network = {"net_id": str(frame.net_id)} if frame.join_eui is None else {"join_eui": str(frame.join_eui)}
    return {
        "rejoin_type": frame.rejoin_type,
        **network,
        "dev_eui": str(frame.dev_eui),
        "rj_count": frame.rj_count,
        **_mic(frame.mic, _join_check(key, missing, phy_payload, frame.mic)),
    }


_JOIN_ACCEPT_FIELDS = ("join_nonce", "net_id", "dev_addr", "dl_settings", "rx_delay", "cf_list", "decrypted_phy")


def _join_accept(frame: JoinAccept, known: Known) -> dict[str, Any]:
    answer: dict[str, Any] = {"encrypted": frame.encrypted.hex()}
    js_enc_key = _js_key(known.keys.js_enc_key, known, known.dev_eui, enc=True)
    key = _root_key(known) or js_enc_key if known.join_req_type == AFTER_JOIN_REQUEST else js_enc_key
    if key is None:
        unknown = dict.fromkeys(_JOIN_ACCEPT_FIELDS)
        return answer | unknown | _mic(None, (None, "the key that opens it is not given"))
    body = crypto.decrypt_join_accept(PreparedKey(key), frame)
    return {
        **answer,
        "join_nonce": str(body.join_nonce),
        "net_id": str(body.net_id),
        "dev_addr": str(body.dev_addr),
        "dl_settings": {
            "opt_neg": body.opt_neg,
            "rx1_dr_offset": body.rx1_dr_offset,
            "rx2_data_rate": body.rx2_data_rate,
        },
        "rx_delay": body.rx_delay,
        "cf_list": _cf_list(body.cf_list),
        "decrypted_phy": (body.message + body.mic).hex(),
        **_mic(body.mic, _join_accept_check(body, known)),
    }


def _join_accept_check(body: JoinAcceptBody, known: Known) -> _Check:
    """MIC of an opened join-accept: with OptNeg under JSIntKey (TS001-1.1 §6.2.3), else under the root key."""
    if known.speaks_1_1 is False or not body.opt_neg:
        root = _root_key(known)
        if root is None:
            return None, "app_key or nwk_key is not given"
        return _VALID if mic_equal(crypto.join_accept_mic(PreparedKey(root), body), body.mic) else _INVALID
    key = _js_key(known.keys.js_int_key, known, known.dev_eui, enc=False)
    if key is None or known.join_eui is None or known.dev_nonce is None:
        return None, "with OptNeg it takes js_int_key (or nwk_key and dev_eui), join_eui and dev_nonce"
    expected = crypto.join_accept_mic_1_1(PreparedKey(key), body, known.join_req_type, known.join_eui, known.dev_nonce)
    return _VALID if mic_equal(expected, body.mic) else _INVALID


def _cf_list(raw: bytes) -> dict[str, Any] | None:
    """CFList taken apart (TS001-1.0.4 §6.2.6, RP002-1.0.4 §2): type 0 frequencies, type 1 channel masks."""
    if not raw:
        return None
    fields: dict[str, Any] = {"raw": raw.hex(), "type": raw[15]}
    if raw[15] == 0:
        fields["frequencies_hz"] = [int.from_bytes(raw[i : i + 3], "little") * 100 for i in range(0, 15, 3)]
    elif raw[15] == 1:
        fields["ch_masks"] = [int.from_bytes(raw[i : i + 2], "little") for i in range(0, 12, 2)]
    return fields

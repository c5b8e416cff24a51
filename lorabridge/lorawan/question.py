"""One question to `lorabridge decode`: a line of JSON from a script, read into values and nothing guessed.

The contract is docs/decode.md. A field that is not there, or null, is not known; one of the wrong type or
out of range is an error of that line. Fields that the contract does not name are the caller's own.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from lorabridge.lorawan.air import DataRate, FskDataRate, LoraDataRate
from lorabridge.lorawan.inspection import AFTER_JOIN_REQUEST, Known, KnownKeys
from lorabridge.lorawan.types import EUI64, FCNT32_MAX, AES128Key, Direction, FCnt32, MacVersion

_T = TypeVar("_T")
_HEX = re.compile(r"[0-9A-Fa-f]*")
_BLANKS = re.compile(r"[ \t\r\n]+")
_LORA = re.compile(r"SF(\d{1,2})BW(\d{1,4}(?:\.\d{1,3})?)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = 0x7FFF_FFFF_FFFF_FFFF
_MHZ_BELOW = 100_000
"""A frequency below this is in MHz, as the UDP protocol writes it: no radio of ours goes below 100 kHz."""
_KEY_NAMES = KnownKeys.__struct_fields__
_DIRECTIONS = {"up": Direction.UP, "down": Direction.DOWN}
_VERSIONS = {
    "1.0": MacVersion.V1_0_4,
    "1.1": MacVersion.V1_1_0,
    **{version.value: version for version in MacVersion},
}


class Fault(enum.Enum):
    """What is wrong with a question that is no fault of the frame."""

    BAD_JSON = "bad_json"
    """The line is not one JSON value in UTF-8, or too long, or says a thing twice."""
    BAD_INPUT = "bad_input"
    """It is no object, or a field has the wrong type or range."""
    BAD_KEY = "bad_key"
    """A key is not 32 hex digits."""


class BadQuestion(Exception):  # noqa: N818  # named as the thing that is bad, as MalformedFrame is
    """The question cannot be answered. The message never repeats a key."""

    def __init__(self, fault: Fault, message: str, question_id: Any = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.question_id = question_id


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked: the frame, what is known of it, and how it was heard."""

    phy_payload: bytes
    known: Known
    received_at: int | None = None
    """Nanoseconds since the Unix epoch."""
    gateway_eui: EUI64 | None = None
    frequency_hz: int | None = None
    data_rate: DataRate | None = None


def read_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line. Raises BadQuestion, with the `id` where it could be read."""
    faults: list[str] = []
    twice: set[str] = set()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            twice.update(name for name, count in Counter(name for name, _ in items).items() if count > 1)
            faults.append("a name is given twice")
        return found

    def number(text: str) -> float | None:
        if math.isfinite(value := float(text)):
            return value
        faults.append("a number is no finite number")
        return None

    try:
        value = json.loads(line.decode("utf-8-sig"), object_pairs_hook=pairs, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise BadQuestion(Fault.BAD_JSON, _json_message(error)) from None
    question_id = value.get("id") if isinstance(value, dict) and "id" not in twice else None
    if faults:
        raise BadQuestion(Fault.BAD_JSON, faults[0], question_id)
    if not isinstance(value, dict):
        raise BadQuestion(Fault.BAD_INPUT, "a line is a JSON object")
    return value


def _json_message(error: Exception) -> str:
    """What is wrong with a line, without repeating any of it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def read_question(fields: Mapping[str, Any]) -> Question:
    """The question that an object asks. Raises BadQuestion."""
    known = Known(
        keys=_keys(fields.get("keys")),
        mac_version=_one_of(fields, "mac_version", _VERSIONS),
        direction=_one_of(fields, "direction", _DIRECTIONS),
        fcnt32=_fcnt32(fields, "fcnt32"),
        last_fcnt32=_fcnt32(fields, "last_fcnt32"),
        conf_fcnt=_conf_fcnt(fields),
        tx_dr=_integer(fields, "tx_dr", 0xFF),
        tx_ch=_integer(fields, "tx_ch", 0xFF),
        f_opts_encrypted=_flag(fields, "f_opts_encrypted", default=True),
        join_eui=_text(fields, "join_eui", EUI64.parse),
        dev_eui=_text(fields, "dev_eui", EUI64.parse),
        dev_nonce=_integer(fields, "dev_nonce", 0xFFFF),
        join_req_type=_join_req_type(fields),
    )
    phy_payload = _text(fields, "phy_payload", read_bytes)
    if phy_payload is None:
        raise BadQuestion(Fault.BAD_INPUT, "phy_payload is missing")
    return Question(
        phy_payload=phy_payload,
        known=known,
        received_at=_received_at(fields),
        gateway_eui=_text(fields, "gateway_eui", EUI64.parse),
        frequency_hz=_frequency(fields),
        data_rate=_data_rate(fields),
    )


def read_bytes(text: str) -> bytes:
    """Bytes written in hex or base64; blanks do not count.

    A string of nothing but hex digits is hex, in either case; all else is base64, standard or URL-safe, padded or
    not. Raises ValueError.
    """
    packed = _BLANKS.sub("", text)
    if _HEX.fullmatch(packed):
        if len(packed) % 2:
            raise ValueError(f"an odd number of hex digits: {len(packed)}")
        return bytes.fromhex(packed)
    digits = packed.rstrip("=").replace("-", "+").replace("_", "/")
    if len(packed) - len(digits) > 2:
        raise ValueError("neither hex nor base64")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("neither hex nor base64") from None


def _bad(name: str, what: str) -> BadQuestion:
    return BadQuestion(Fault.BAD_INPUT, f"{name}: {what}")


def _text(fields: Mapping[str, Any], name: str, read: Callable[[str], _T]) -> _T | None:
    """A field written as a string."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _bad(name, "not a string")
    try:
        return read(value)
    except ValueError as error:
        raise _bad(name, str(error)) from None


def _integer(fields: Mapping[str, Any], name: str, highest: int) -> int | None:
    """A whole number from 0."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise _bad(name, f"not a whole number from 0 to {highest}")
    return value


def _fcnt32(fields: Mapping[str, Any], name: str) -> FCnt32 | None:
    value = _integer(fields, name, FCNT32_MAX)
    return None if value is None else FCnt32(value)


def _conf_fcnt(fields: Mapping[str, Any]) -> int | None:
    """ConfFCnt is the acknowledged counter modulo 2^16 (TS001-1.1 §4.4)."""
    value = _integer(fields, "conf_fcnt", FCNT32_MAX)
    return None if value is None else value & 0xFFFF


def _flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _bad(name, "not true or false")
    return value


def _one_of(fields: Mapping[str, Any], name: str, choices: Mapping[str, _T]) -> _T | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or value not in choices:
        raise _bad(name, f"not one of {', '.join(sorted(choices))}")
    return choices[value]


def _join_req_type(fields: Mapping[str, Any]) -> int:
    value = _integer(fields, "join_req_type", 0xFF)
    if value not in (None, 0, 1, 2, AFTER_JOIN_REQUEST):
        raise _bad("join_req_type", "255 after a join-request, 0, 1 or 2 after a rejoin-request")
    return AFTER_JOIN_REQUEST if value is None else value


def _keys(value: Any) -> KnownKeys:
    """The keys by name; names that are no key's are passed over, like other fields of the caller's own."""
    if value is None:
        return KnownKeys()
    if not isinstance(value, dict):
        raise _bad("keys", "not an object")
    found: dict[str, AES128Key] = {}
    for name in _KEY_NAMES:
        text = value.get(name)
        if text is None:
            continue
        if not isinstance(text, str):
            raise BadQuestion(Fault.BAD_KEY, f"keys.{name}: not a string")
        try:
            found[name] = AES128Key.parse(text)
        except ValueError as error:
            raise BadQuestion(Fault.BAD_KEY, f"keys.{name}: {error}") from None
    return KnownKeys(**found)


def _received_at(fields: Mapping[str, Any]) -> int | None:
    """Nanoseconds since the Unix epoch, or RFC 3339."""
    value = fields.get("received_at")
    if not isinstance(value, str):
        return _integer(fields, "received_at", _LAST_NS)
    try:
        at = datetime.fromisoformat(value)
        since = at - _EPOCH
    except (ValueError, TypeError):
        raise _bad("received_at", "not RFC 3339 with a time zone") from None
    if since < timedelta(0):
        raise _bad("received_at", "before 1970")
    return (since // timedelta(microseconds=1)) * 1000


def _frequency(fields: Mapping[str, Any]) -> int | None:
    """Hz; a number below 100 000 is MHz."""
    value = fields.get("frequency")
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= FCNT32_MAX:
        raise _bad("frequency", "not a frequency in Hz or MHz")
    return round(value * 1_000_000 if value < _MHZ_BELOW else value)


def _data_rate(fields: Mapping[str, Any]) -> DataRate | None:
    """`SF7BW125`, or a whole number of bit/s for FSK."""
    value = fields.get("data_rate")
    if not isinstance(value, str):
        bit_rate = _integer(fields, "data_rate", 1_000_000)
        return None if bit_rate is None else FskDataRate(bit_rate)
    found = _LORA.fullmatch(value)
    if found is None:
        raise _bad("data_rate", "neither SF7BW125 nor a number of bit/s")
    return LoraDataRate(int(found[1]), round(float(found[2]) * 1000))

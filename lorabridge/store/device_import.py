"""Devices out of what other network servers export, as tables for a device file.

ChirpStack has no export file: its JSON is what its REST API answers (`Device`, `DeviceKeys`,
`DeviceActivation`, `DeviceProfile`; api/proto/api/device.proto). The Things Stack writes a stream of
`EndDevice` objects (`ttn-lw-cli end-devices get`, with session and root keys when asked for), and reads
the CSV of pkg/devicetemplates/ttscsv.go.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from lorabridge.errors import ConfigError, Problem
from lorabridge.lorawan.regions import REGIONS
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, MacVersion
from lorabridge.store.device_settings import KEY_FIELDS

FORMATS = ("auto", "chirpstack", "tts", "csv")

_COLUMNS = {
    "name": "name",
    "devicename": "name",
    "id": "device_id",
    "deviceid": "device_id",
    "deveui": "dev_eui",
    "deviceeui": "dev_eui",
    "joineui": "join_eui",
    "appeui": "join_eui",
    "lorawanversion": "mac_version",
    "macversion": "mac_version",
    "frequencyplanid": "region",
    "region": "region",
    "devaddr": "dev_addr",
    "nwkskey": "nwk_s_key",
    "appskey": "app_s_key",
    "fnwksintkey": "f_nwk_s_int_key",
    "snwksintkey": "s_nwk_s_int_key",
    "nwksenckey": "nwk_s_enc_key",
    "appkey": "app_key",
    "nwkkey": "nwk_key",
}
"""Our field by a column's letters and digits, as The Things Stack, ChirpStack's API and people write them."""

_REGIONS = (
    ("EU_863_870", "EU868"),
    ("US_902_928", "US915"),
    ("AU_915_928", "AU915"),
    ("CN_470_510", "CN470"),
    ("EU_433", "EU433"),
    ("IN_865_867", "IN865"),
    ("KR_920_923", "KR920"),
    ("RU_864_870", "RU864"),
)
"""Frequency plans of The Things Stack by how they begin; AS923 has groups that their names do not tell."""

_VERSION = re.compile(r"(?:MAC_V|LORAWAN_)?(1)[._]([01])(?:[._]([0-4]))?")
_NETWORK_KEYS = ("f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key")


class ImportedDevice(msgspec.Struct, frozen=True):
    """A device ready for a device file: our field names and written values."""

    fields: Mapping[str, str]
    tags: Mapping[str, str]
    notes: tuple[str, ...]
    """What was missing, assumed or left behind."""


def import_devices(
    data: bytes, source: str, kind: str = "auto", mac_version: MacVersion | None = None
) -> tuple[list[ImportedDevice], list[Problem]]:
    """The devices of an export, and what could not be taken. `mac_version`: for devices that do not say.

    Raises ConfigError when the file is none of the formats.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unreadable(source, "is no UTF-8 text") from None
    if kind == "csv" or (kind == "auto" and text.lstrip()[:1] not in ("{", "[")):
        found: list[dict[str, Any]] = list(_from_csv(text, source))
    else:
        objects = list(_json_stream(text, source))
        if kind == "auto":
            kind = "tts" if any("ids" in one for one in objects) else "chirpstack"
        found = [_from_tts(one) for one in objects] if kind == "tts" else _from_chirpstack(objects)
    if not found:
        raise _unreadable(source, "holds no device")
    devices: list[ImportedDevice] = []
    problems: list[Problem] = []
    names: set[str] = set()
    for number, raw in enumerate(found, 1):
        device = _convert(raw, f"{source}: device {number}", mac_version, names, problems)
        if device is not None:
            devices.append(device)
    return devices, problems


def to_toml(devices: Iterable[ImportedDevice]) -> str:
    """A device file."""
    lines: list[str] = []
    for device in devices:
        lines += [f"# {note}" for note in device.notes]
        lines.append("[[device]]")
        lines += [f"{field} = {_quoted(value)}" for field, value in device.fields.items()]
        if device.tags:
            pairs = ", ".join(f"{_quoted(key)} = {_quoted(value)}" for key, value in device.tags.items())
            lines.append(f"tags = {{ {pairs} }}")
        lines.append("")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's, with DEL escaped too and half a surrogate pair replaced."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")


def _unreadable(source: str, what: str) -> ConfigError:
    hint = "give a JSON or CSV export of ChirpStack or The Things Stack"
    return ConfigError([Problem(where=source, what=what, hint=hint)])


def _from_csv(text: str, source: str) -> Iterator[dict[str, Any]]:
    """Rows as our fields; the delimiter is the first of ; , and tab in the header."""
    header = text.partition("\n")[0]
    delimiter = next((sign for sign in ";,\t" if sign in header), ",")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise _unreadable(source, f"is no CSV: {error}") from None
    columns = [_COLUMNS.get(re.sub(r"[^a-z0-9]", "", name.lower())) for name in rows[0]] if rows else []
    if "dev_eui" not in columns:
        raise _unreadable(source, "has no column dev_eui in its first line")
    for row in rows[1:]:
        if any(cell.strip() for cell in row):
            yield {column: cell.strip() for column, cell in zip(columns, row, strict=False) if column and cell.strip()}


def _json_stream(text: str, source: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON text: one, a list of them, one a line, or one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace() or text[at] == ",":
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise _unreadable(source, f"is no JSON in line {text.count(chr(10), 0, at) + 1}") from None
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                raise _unreadable(source, "holds something else than objects")
            yield one


def _from_tts(end_device: Mapping[str, Any]) -> dict[str, Any]:
    """An EndDevice of The Things Stack."""
    ids, session = _object(end_device, "ids"), _object(end_device, "session")
    found = {
        "device_id": ids.get("device_id"),
        "dev_eui": ids.get("dev_eui"),
        "join_eui": ids.get("join_eui"),
        "dev_addr": session.get("dev_addr") or ids.get("dev_addr"),
        "name": end_device.get("name"),
        "mac_version": end_device.get("lorawan_version"),
        "region": end_device.get("frequency_plan_id"),
        "joins": "yes" if end_device.get("supports_join") is True else None,
        "class": "C" if end_device.get("supports_class_c") is True else None,
    }
    for keys in (_object(session, "keys"), _object(end_device, "root_keys")):
        for field in KEY_FIELDS:
            envelope = _object(keys, field)
            found[field] = found.get(field) or envelope.get("key")
            if envelope.get("encrypted_key") and not envelope.get("key"):
                found["wrapped"] = "yes"
    return {**_texts(found), "tags": _texts(_object(end_device, "attributes"))}


def _from_chirpstack(answers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the REST API answered, in any order and nesting, put together by DevEUI."""
    devices: dict[str, dict[str, Any]] = {}
    profiles: dict[str, dict[str, Any]] = {}
    waiting = [_snake(answer) for answer in answers]
    while waiting:
        answer = waiting.pop()
        for name in ("device", "device_keys", "device_activation", "device_profile"):
            found = answer.get(name)
            waiting += [_snake(found)] if isinstance(found, dict) else []
        if isinstance(answer.get("result"), list):
            waiting += [_snake(one) for one in answer["result"] if isinstance(one, dict)]
        if isinstance(answer.get("dev_eui"), str):
            known = devices.setdefault(answer["dev_eui"].lower(), {"chirpstack": "yes"})
            known.update({field: value for field, value in answer.items() if value not in (None, "")})
        elif "mac_version" in answer and isinstance(answer.get("id"), str):
            profiles[answer["id"]] = answer
    for device in devices.values():
        profile = profiles.get(str(device.get("device_profile_id")), {})
        device["mac_version"] = device.get("mac_version") or profile.get("mac_version")
        device["region"] = device.get("region") or profile.get("region")
        device["joins"] = "yes" if profile.get("supports_otaa") is True else None
        device["class"] = "C" if profile.get("supports_class_c") is True else None
    return [{**_texts(device), "tags": _texts(_object(device, "tags"))} for _, device in sorted(devices.items())]


def _snake(table: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as the protocol files write them: the REST gateway answers in camelCase, `devEui`, `fNwkSIntKey`."""
    return {re.sub(r"(?<!^)([A-Z])", r"_\1", key).lower(): value for key, value in table.items()}


def _object(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = table.get(name)
    return found if isinstance(found, dict) else {}


def _texts(table: Mapping[str, Any]) -> dict[str, str]:
    return {field: value.strip() for field, value in table.items() if isinstance(value, str) and value.strip()}


def _convert(
    raw: Mapping[str, Any], where: str, default: MacVersion | None, names: set[str], problems: list[Problem]
) -> ImportedDevice | None:
    """One device by our rules, or None with a problem that says what is missing."""
    notes: list[str] = []
    before = len(problems)
    written = {
        field: _written(field, raw, where, problems) for field in ("dev_eui", "dev_addr", "join_eui", *KEY_FIELDS)
    }
    values = {field: value for field, value in written.items() if value}
    if "dev_eui" not in values and len(problems) == before:
        problems.append(Problem(where=f"{where}.dev_eui", what="is missing", hint="every device needs its DevEUI"))
    if len(problems) > before:
        return None
    version = _version(raw, values, default, notes)
    keys = _session_fields(values, version) or _root_fields(raw, values, version)
    if keys is None:
        what = "has neither a session (dev_addr and network session keys) nor root keys (app_key)"
        if raw.get("wrapped"):
            what += "; its keys are wrapped"
        hint = "export it again with its keys, as somebody who may read them"
        problems.append(Problem(where=f"{where} ({values['dev_eui']})", what=what, hint=hint))
        return None
    device = {"name": _name(raw, values["dev_eui"], names), "dev_eui": values["dev_eui"], "mac_version": version.value}
    region = _region(str(raw.get("region", "")))
    device |= keys | ({"region": region} if region else {}) | ({"class": "C"} if raw.get("class") == "C" else {})
    notes += _notes(raw, values, keys, version, region)
    tags = dict(list(raw.get("tags", {}).items())[:32])
    return ImportedDevice(device, {key[:64]: value[:256] for key, value in tags.items()}, tuple(notes))


def _written(field: str, raw: Mapping[str, Any], where: str, problems: list[Problem]) -> str | None:
    """An address or key in plain hex, or None: absent, wrong (a problem), or the zeros that stand for no key."""
    text = raw.get(field)
    if not text:
        return None
    try:
        if field in KEY_FIELDS:
            secret = AES128Key.parse(text).reveal()
            return secret.hex() if any(secret) else None
        return str(DevAddr.parse(text) if field == "dev_addr" else EUI64.parse(text))
    except ValueError as error:
        problems.append(Problem(where=f"{where}.{field}", what=str(error), hint="this device was left out"))
        return None


def _version(
    raw: Mapping[str, Any], values: Mapping[str, str], default: MacVersion | None, notes: list[str]
) -> MacVersion:
    """The version as exported, or asked for, or by the keys that are there."""
    found = _VERSION.fullmatch(str(raw.get("mac_version", "")))
    if found:
        return MacVersion("1.1.0" if found[2] == "1" else f"1.0.{found[3] or 0}")
    if default is not None:
        return default
    three = [values.get(field) for field in _NETWORK_KEYS]
    guessed = MacVersion.V1_1_0 if all(three) and len(set(three)) > 1 else MacVersion.V1_0_3
    notes.append(f"the export does not say the LoRaWAN version: {guessed.value} was assumed, by the keys; check it")
    return guessed


def _session_fields(values: Mapping[str, str], version: MacVersion) -> dict[str, str] | None:
    """The fields of a device with a session, or None when something of it is missing."""
    found = {"activation": "abp", "dev_addr": values.get("dev_addr")}
    if version.is_1_1:
        found |= {field: values.get(field) for field in _NETWORK_KEYS}
    else:
        # Both servers write the NwkSKey of 1.0 in the fields of 1.1; The Things Stack in the first only.
        found["nwk_s_key"] = values.get("nwk_s_key") or values.get("f_nwk_s_int_key") or values.get("nwk_s_enc_key")
    complete = {field: value for field, value in found.items() if value}
    if len(complete) < len(found):
        return None
    return complete | ({"app_s_key": values["app_s_key"]} if "app_s_key" in values else {})


def _root_fields(raw: Mapping[str, Any], values: Mapping[str, str], version: MacVersion) -> dict[str, str] | None:
    """The fields of a device that joins, or None when something of it is missing."""
    app_key = values.get("app_key")
    if not version.is_1_1 and (raw.get("chirpstack") or app_key is None):
        app_key = values.get("nwk_key")  # ChirpStack: "For LoRaWAN 1.0.x, use this field for the AppKey"
    found = {"activation": "otaa", "join_eui": values.get("join_eui") or "0" * 16, "app_key": app_key}
    if version.is_1_1:
        found["nwk_key"] = values.get("nwk_key")
    needed = "nwk_key" if version.is_1_1 else "app_key"
    return {field: value for field, value in found.items() if value} if found[needed] else None


def _notes(
    raw: Mapping[str, Any], values: Mapping[str, str], keys: Mapping[str, str], version: MacVersion, region: str | None
) -> Iterator[str]:
    """What the operator should know of this device."""
    if keys["activation"] == "abp":
        if raw.get("joins") or "app_key" in values or "nwk_key" in values:
            yield "it joins (OTAA): this is its session at the time of the export, good until it joins again"
            yield "to have its joins answered here, write it with its root keys as activation otaa instead"
        if "app_s_key" not in keys:
            yield "no AppSKey: its payloads stay encrypted"
        if version.is_1_1 and region is None:
            yield "no region that is known here: the bridge's own is taken"
    else:
        yield "no session keys: its data frames are taken once it has joined again"
        if version.is_1_1 and "app_key" not in keys:
            yield "no AppKey: its payloads stay encrypted"
        if "join_eui" not in values:
            yield "no JoinEUI: zeros were written; put in what the device has"


def _region(plan: str) -> str | None:
    """Our name of a region or frequency plan, or None."""
    if plan in REGIONS:
        return plan
    return next((region for prefix, region in _REGIONS if plan.startswith(prefix) and region in REGIONS), None)


def _name(raw: Mapping[str, Any], dev_eui: str, names: set[str]) -> str:
    """A name that no device has yet."""
    wanted = str(raw.get("name") or raw.get("device_id") or dev_eui)
    name = "".join(sign for sign in wanted if sign.isprintable()).strip()[:47] or dev_eui
    if name in names:
        name = f"{name} {dev_eui}"
    names.add(name)
    return name

"""Device Shadow, classic and named (developer guide, "Device Shadow MQTT topics", "… service documents")."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Union

import msgspec

from lorabridge.simulation.standin.services.reply import Rejected, Reply, build_reply

MAX_DOCUMENT = 8 * 1024
MAX_DEPTH = 6
MAX_TOKEN = 64
_TOPIC = re.compile(r"\$aws/things/([^/]+)/shadow(?:/name/([$a-zA-Z0-9:_-]{1,64}))?/(get|update|delete)")
_SECTIONS = ("desired", "reported")
Json = dict[str, Any]


class _Leaf(NamedTuple):
    """A value that is no object, and when it was set."""

    value: Any
    at: int


_Tree = dict[str, Union[_Leaf, "_Tree"]]


class _Shadow(msgspec.Struct, frozen=True):
    """One document. Its version outlives it: a shadow that is made anew goes on counting."""

    version: int = 0
    sections: dict[str, _Tree] | None = None
    """None when it was deleted, or never made."""

    def document(self, *, with_delta: bool = False) -> Json:
        """State, metadata and version."""
        trees = dict(self.sections or {})
        if with_delta and (delta := self.delta()):
            trees["delta"] = delta
        state = {name: _state(tree) for name, tree in trees.items()}
        metadata = {name: _metadata(tree) for name, tree in trees.items()}
        return {"state": state, "metadata": metadata, "version": self.version}

    def delta(self) -> _Tree:
        """What is desired and not reported."""
        sections = self.sections or {}
        return _difference(sections.get("desired", {}), sections.get("reported", {}))


class Shadows:
    """The shadows of all things. Every thing exists."""

    def __init__(self) -> None:
        self._shadows: dict[tuple[str, str], _Shadow] = {}

    def answer(self, topic: str, payload: bytes, now: float) -> list[Reply] | None:
        """The replies to a request, or None when the topic is none of a shadow's requests; `now` is Unix time."""
        found = _TOPIC.fullmatch(topic)
        if found is None:
            return None
        thing, name, verb = found[1], found[2] or "", found[3]
        token: str | None = None
        try:
            request = _parse(payload, needs_body=verb == "update")
            token = _token(request)
            if verb == "update":
                return self._update(topic, (thing, name), request, int(now))
            fields = self._get(thing, name) if verb == "get" else self._delete(thing, name)
        except Rejected as rejected:
            error = {"code": rejected.code, "message": rejected.message, "timestamp": int(now), "clientToken": token}
            return [build_reply(f"{topic}/rejected", error)]
        return [build_reply(f"{topic}/accepted", {**fields, "timestamp": int(now), "clientToken": token})]

    def state(self, thing: str, name: str = "") -> Json:
        """`desired` and `reported` as they are now."""
        state: Json = self._shadows.get((thing, name), _Shadow()).document()["state"]
        return state

    def _existing(self, thing: str, name: str) -> _Shadow:
        shadow = self._shadows.get((thing, name))
        if shadow is None or shadow.sections is None:
            raise Rejected(404, f"No shadow exists with name: '{name or thing}'")
        return shadow

    def _get(self, thing: str, name: str) -> Json:
        return self._existing(thing, name).document(with_delta=True)

    def _delete(self, thing: str, name: str) -> Json:
        shadow = self._existing(thing, name)
        self._shadows[thing, name] = _Shadow(shadow.version + 1)
        return {"version": shadow.version}

    def _update(self, topic: str, key: tuple[str, str], request: Json, now: int) -> list[Reply]:
        changes = _changes(request)
        before = self._shadows.get(key, _Shadow())
        if request.get("version") not in (None, before.version):
            raise Rejected(409, "Version conflict")
        sections, said = dict(before.sections or {}), {}
        for section, change in changes.items():
            if change is None:
                sections.pop(section, None)
            else:
                sections[section] = _merge(sections.get(section, {}), change, now)
                said[section] = _metadata(_merge({}, change, now))
        after = self._shadows[key] = _sized(_Shadow(before.version + 1, sections))
        common = {"version": after.version, "timestamp": now, "clientToken": request.get("clientToken")}
        documents = {"previous": before.document(), "current": after.document(), **common, "version": None}
        replies = [
            build_reply(f"{topic}/accepted", {"state": changes, "metadata": said, **common}),
            build_reply(f"{topic}/documents", documents),
        ]
        if delta := after.delta():
            fields = {"state": _state(delta), "metadata": _metadata(delta), **common}
            replies.append(build_reply(f"{topic}/delta", fields))
        return replies


def _sized(shadow: _Shadow) -> _Shadow:
    """The same, unless its state is too large."""
    if len(msgspec.json.encode(shadow.document()["state"])) > MAX_DOCUMENT:
        raise Rejected(413, "The payload exceeds the maximum size allowed")
    return shadow


def _parse(payload: bytes, *, needs_body: bool) -> Json:
    """The request's object; an empty payload is an empty one where no body is needed."""
    if not payload and not needs_body:
        return {}
    try:
        payload.decode()
        request = msgspec.json.decode(payload)
    except UnicodeDecodeError:
        raise Rejected(415, "Unsupported documented encoding; supported encoding is UTF-8") from None
    except (msgspec.DecodeError, RecursionError):
        raise Rejected(400, "Invalid JSON") from None
    if not isinstance(request, dict):
        raise Rejected(400, "Invalid JSON")
    return request


def _token(request: Json) -> str | None:
    token = request.get("clientToken")
    if token is not None and (not isinstance(token, str) or len(token.encode()) > MAX_TOKEN):
        raise Rejected(400, "Invalid clientToken")
    return token


def _changes(request: Json) -> dict[str, Json | None]:
    """The sections of an update; None deletes one."""
    version = request.get("version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 0):
        raise Rejected(400, "Invalid version")
    if "state" not in request:
        raise Rejected(400, "Missing required node: state")
    state = request["state"]
    if not isinstance(state, dict):
        raise Rejected(400, "State node must be an object")
    if set(state) - set(_SECTIONS):
        raise Rejected(400, "State contains an invalid node")
    for section, change in state.items():
        if change is not None and not isinstance(change, dict):
            raise Rejected(400, f"{section.capitalize()} node must be an object")
        if _depth(change) > MAX_DEPTH:
            raise Rejected(400, f"JSON contains too many levels of nesting; maximum is {MAX_DEPTH}")
    return state


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((_depth(part) for part in inner), default=0)


def _merge(old: _Tree, change: Json, now: int) -> _Tree:
    """`change` upon `old`: objects into objects, everything else in place of what was there; null deletes."""
    merged = dict(old)
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            below = merged.get(name)
            merged[name] = _merge(below if isinstance(below, dict) else {}, value, now)
        else:
            merged[name] = _Leaf(value, now)
    return merged


def _state(tree: _Tree) -> Json:
    return {name: part.value if isinstance(part, _Leaf) else _state(part) for name, part in tree.items()}


def _metadata(tree: _Tree) -> Json:
    """The time of each value; a list has it for each of its elements."""
    return {
        name: _stamps(part.value, part.at) if isinstance(part, _Leaf) else _metadata(part)
        for name, part in tree.items()
    }


def _stamps(value: Any, at: int) -> Any:
    return [_stamps(part, at) for part in value] if isinstance(value, list) else {"timestamp": at}


def _difference(desired: _Tree, reported: _Tree) -> _Tree:
    """The part of `desired` that `reported` does not say; objects are gone into."""
    found: _Tree = {}
    for name, part in desired.items():
        other = reported.get(name)
        if isinstance(part, dict) and isinstance(other, dict):
            if below := _difference(part, other):
                found[name] = below
        elif other is None or isinstance(part, dict) or isinstance(other, dict) or part.value != other.value:
            found[name] = part
    return found

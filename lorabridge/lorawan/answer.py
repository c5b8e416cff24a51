"""The answer to one question of `lorabridge decode`: the frame taken apart and, where devices are given, judged.

The verdict is the real engine's; its state lives in memory and ends with the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lorabridge.lorawan.activation import JoinedSession, JoinHistory
from lorabridge.lorawan.air import CrcStatus, LoraDataRate, Reception
from lorabridge.lorawan.decision import Decision, Network
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.engine import Engine
from lorabridge.lorawan.grammar import MalformedFrame
from lorabridge.lorawan.inspection import Known, KnownKeys, inspect
from lorabridge.lorawan.question import BadQuestion, Fault, Question, read_bytes, read_object, read_question
from lorabridge.lorawan.session import History, Session
from lorabridge.lorawan.table import SessionTable
from lorabridge.lorawan.types import EUI64, FCnt32
from lorabridge.lorawan.verdict import Reason, Verdict

_STEP_NS = 10_000_000_000
"""Between lines that do not say when they were heard: past every window for copies, so that their order decides."""
_FIRST_AT_NS = 946_684_800_000_000_000
_GATEWAY = EUI64(0)
_FREQUENCY_HZ = 868_100_000
_DATA_RATE = LoraDataRate(7, 125_000)


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What was committed before, to judge by; nothing of it is ever changed."""

    sessions: Mapping[bytes, Session] = {}
    joined: Mapping[bytes, JoinedSession] = {}
    history: History = History()


class _Heard(History):
    """The frames and joins of this run, and those before it."""

    def __init__(self, before: History) -> None:
        self._before = before
        self._frames: set[tuple[bytes, FCnt32, bytes]] = set()
        self._joins: dict[bytes, JoinHistory] = {}
        self._nonces: set[tuple[bytes, int]] = set()

    def note(self, decision: Decision) -> None:
        """Remember what a decision leaves behind."""
        if decision.heard is not None:
            self._frames.add(decision.heard)
        if decision.join is not None:
            history, nonce = decision.join.history, decision.join.nonce
            self._joins[history.join_id] = history
            if nonce is not None:
                self._nonces.add((history.join_id, nonce))

    def heard(self, session_id: bytes, fcnt32: FCnt32, mic: bytes) -> bool:
        return (session_id, fcnt32, mic) in self._frames or self._before.heard(session_id, fcnt32, mic)

    def join_history(self, join_id: bytes) -> JoinHistory | None:
        return self._joins.get(join_id) or self._before.join_history(join_id)

    def nonce_used(self, join_id: bytes, dev_nonce: int) -> bool:
        return (join_id, dev_nonce) in self._nonces or self._before.nonce_used(join_id, dev_nonce)


class Judge:
    """Judges questions, or receptions, in their order as the daemon would, and answers nobody."""

    def __init__(
        self,
        devices: Iterable[Device],
        region: str | None = None,
        *,
        network: Network | None = None,
        past: Past = Past(),  # noqa: B008  # it is frozen
    ) -> None:
        """`region` of devices that name none; `network`: what is ours, else the networks of the devices' addresses."""
        self._devices = tuple(devices)
        self._table = SessionTable(self._devices, past.sessions, region, joined=past.joined)
        self._history = _Heard(past.history)
        ours = _network(self._devices) if network is None else msgspec.structs.replace(network, answering=None)
        self._engine = Engine(self._table, ours, self._history)
        self._at = _FIRST_AT_NS

    def judge(self, question: Question) -> Decision:
        """The decision for a frame, made true at once."""
        self._at = self._at + _STEP_NS if question.received_at is None else question.received_at
        return self.hear(
            Reception(
                phy_payload=question.phy_payload,
                received_at=self._at,
                gateway_eui=_GATEWAY if question.gateway_eui is None else question.gateway_eui,
                source="decode",
                crc=CrcStatus.OK,
                frequency_hz=_FREQUENCY_HZ if question.frequency_hz is None else question.frequency_hz,
                data_rate=_DATA_RATE if question.data_rate is None else question.data_rate,
            )
        )

    def hear(self, reception: Reception) -> Decision:
        """The decision for a reception, made true at once, in this run only."""
        (decision,) = self._engine.judge_all([reception])
        self._table.advance([] if decision.session is None else [decision.session], ended=decision.ended)
        self._history.note(decision)
        return decision

    def candidates(self, answer: dict[str, Any], decision: Decision) -> list[Device]:
        """Whose the frame is, when it is proved, else whose it claims to be."""
        if decision.device is not None:
            return [device for device in self._devices if device.dev_eui == decision.device.dev_eui]
        claims = (answer.get("dev_addr"), answer.get("dev_eui"))
        return [device for device in self._devices if str(device.dev_addr) in claims or str(device.dev_eui) in claims]


def answer_line(line: bytes | None, judge: Judge | None) -> dict[str, Any]:
    """The answer to a line of JSON (None: one that was too long to be read). It never raises."""
    if line is None:
        return _refused(None, Fault.BAD_JSON.value, "the line is too long")
    question_id = None
    try:
        fields = read_object(line)
        question_id = fields.get("id")
        question = read_question(fields)
    except BadQuestion as error:
        return _refused(error.question_id if question_id is None else question_id, error.fault.value, str(error))
    return {"id": question_id, **_answer(question, judge)}


def answer_text(text: str, judge: Judge | None) -> dict[str, Any]:
    """The answer to nothing but a frame in hex or base64, without `id`."""
    try:
        phy_payload = read_bytes(text)
    except ValueError as error:
        return {"ok": False, "error": {"reason": Fault.BAD_INPUT.value, "message": str(error)}}
    return _answer(Question(phy_payload=phy_payload, known=Known()), judge)


def _refused(question_id: Any, reason: str, message: str) -> dict[str, Any]:
    return {"id": question_id, "ok": False, "error": {"reason": reason, "message": message}}


def _answer(question: Question, judge: Judge | None) -> dict[str, Any]:
    try:
        answer = inspect(question.phy_payload, question.known)
    except MalformedFrame as error:
        fields: dict[str, Any] = {"ok": False, "error": {"reason": error.reason.value, "message": str(error)}}
        if judge is not None:
            wrong_way = error.reason is Reason.WRONG_DIRECTION
            fields["verdict"] = (Verdict.WRONG_DIRECTION if wrong_way else Verdict.MALFORMED).value
        return fields
    if judge is not None:
        answer = _judged(answer, question, judge)
    return {"ok": True, **answer}


def _judged(answer: dict[str, Any], question: Question, judge: Judge) -> dict[str, Any]:
    """The answer with its verdict and, unless the question brought keys of its own, by the keys of the device."""
    decision = judge.judge(question)
    proved, name = decision.device is not None, None
    tried: list[dict[str, Any]] = []
    for device in judge.candidates(answer, decision):
        attempt = inspect(question.phy_payload, _with_device(question.known, device, decision.fcnt32))
        tried.append(attempt)
        if proved or attempt["mic_valid"]:
            name = device.name
            break
    if question.known.keys == KnownKeys() and tried:
        if name is not None:
            answer = tried[-1]
        # The engine knew data rate, channel and acknowledged counter; `inspect` was perhaps not told.
        if proved or all(attempt["mic_valid"] is False for attempt in tried):
            answer = {field: value for field, value in answer.items() if field != "mic_detail"}
            answer["mic_valid"] = name is not None
        elif name is None:
            answer["mic_detail"] = next(attempt["mic_detail"] for attempt in tried if attempt["mic_valid"] is None)
    return {**answer, "verdict": decision.verdict.value, "verdict_detail": decision.detail, "device": name}


def _with_device(known: Known, device: Device, fcnt32: FCnt32 | None) -> Known:
    """What is known when the frame is taken to be of a device."""
    keys = KnownKeys(app_key=device.app_key, nwk_key=device.nwk_key)
    session = device.session_keys
    if session is not None and device.mac_version.is_1_1:
        keys = msgspec.structs.replace(
            keys,
            f_nwk_s_int_key=session.f_nwk_s_int_key,
            s_nwk_s_int_key=session.s_nwk_s_int_key,
            nwk_s_enc_key=session.nwk_s_enc_key,
            app_s_key=session.app_s_key,
        )
    elif session is not None:
        keys = msgspec.structs.replace(keys, nwk_s_key=session.f_nwk_s_int_key, app_s_key=session.app_s_key)
    return msgspec.structs.replace(
        known,
        keys=keys,
        mac_version=known.mac_version or device.mac_version,
        fcnt32=known.fcnt32 if fcnt32 is None else fcnt32,
    )


def _network(devices: Iterable[Device]) -> Network:
    """Without a configuration, ours are the networks that the addresses of the devices belong to."""
    prefixes = {device.dev_addr.network_prefix for device in devices if device.dev_addr is not None}
    return Network(dev_addr_prefixes=tuple(sorted(prefixes)))

"""Downlinks as a device sees them: what is built is read back with the primitives alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.lorawan.commands import CommandReason, DownlinkCommand, QueuedCommand
from lorabridge.lorawan.crypto import SessionCrypto
from lorabridge.lorawan.device import Device, MulticastGroup, SessionKeys
from lorabridge.lorawan.downlink import (
    FHDR_SIZE,
    Contents,
    Downlink,
    build_downlink,
    build_multicast,
    command_problem,
    next_app_fcnt,
)
from lorabridge.lorawan.frame import DataFrame, parse
from lorabridge.lorawan.grammar import MIC_SIZE, MType
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.session import MAX_FCNT_GAP, Session
from lorabridge.lorawan.table import Entry, SessionTable
from lorabridge.lorawan.types import EUI64, FCNT32_MAX, DevAddr, Direction, FCnt32
from tests.lorawan.builders import KEYS_1_0, device, device_1_1, key

V1_0, V1_1 = device(region="EU868", adr=False), device_1_1(adr=False)
PLAIN = MacPolicy()
DOWN = Direction.DOWN


def entry_of(who: Device) -> Entry:
    assert who.dev_addr is not None
    (entry,) = SessionTable([who], {}).at(who.dev_addr)
    return entry


def session_of(who: Device, **fields: Any) -> Session:
    entry = entry_of(who)
    return Session(session_id=entry.session_id, dev_eui=who.dev_eui, **fields)


def command(payload: bytes = b"open", f_port: int = 9, **fields: Any) -> QueuedCommand:
    order = DownlinkCommand(id="a", target=V1_0.dev_eui, f_port=f_port, payload=payload, **fields)
    return QueuedCommand(queue_id=1, command=order)


def built(who: Device, session: Session, contents: Contents, limit: int = 59, policy: MacPolicy = PLAIN) -> Downlink:
    found = build_downlink(
        entry_of(who),
        SessionCrypto(entry_of(who).keys),
        session,
        contents,
        policy=policy,
        uplink_adr=False,
        limit=limit,
    )
    assert found is not None
    return found


class Read(msgspec.Struct):
    """A downlink as its device reads it."""

    frame: DataFrame
    payload: bytes
    f_opts: bytes


def read(who: Device, downlink: Downlink, *, ack_of: int = 0) -> Read:
    """Check the MIC, decrypt."""
    frame = parse(downlink.phy_payload, direction=DOWN)
    assert isinstance(frame, DataFrame)
    assert who.session_keys is not None
    assert frame.dev_addr == who.dev_addr
    crypto, fcnt32 = SessionCrypto(who.session_keys), downlink.fcnt32
    assert frame.fcnt16 == fcnt32 & 0xFFFF
    if who.mac_version.is_1_1:
        assert crypto.mic_down_1_1(frame.message, frame.dev_addr, fcnt32, ack_of & 0xFFFF) == frame.mic
    else:
        assert crypto.mic_1_0(frame.message, DOWN, frame.dev_addr, fcnt32) == frame.mic
    payload = crypto.frm_payload(frame.frm_payload, frame.f_port, DOWN, frame.dev_addr, fcnt32)
    f_opts = frame.f_opts
    if f_opts and who.mac_version.is_1_1:
        f_opts = crypto.f_opts_1_1(f_opts, DOWN, frame.dev_addr, fcnt32, a_fcnt_down=bool(frame.f_port))
    assert payload is not None
    return Read(frame, payload, f_opts)


@given(
    st.sampled_from([V1_0, V1_1]),
    st.binary(max_size=60),
    st.integers(1, 223),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, FCNT32_MAX)),
    st.binary(max_size=15),
    st.integers(0, FCNT32_MAX),
    st.integers(0, FCNT32_MAX),
    st.booleans(),
)
def test_a_device_reads_what_was_built_for_it(  # noqa: PLR0917
    who: Device,
    payload: bytes,
    f_port: int,
    confirmed: bool,
    ack_of: int | None,
    answers: bytes,
    fcnt: int,
    a_fcnt: int,
    more: bool,
) -> None:
    session = session_of(who, fcnt_down=FCnt32(fcnt), a_fcnt_down=FCnt32(a_fcnt))
    contents = Contents(
        ack_of=None if ack_of is None else FCnt32(ack_of),
        mac_answers=answers,
        command=command(payload, f_port, confirmed=confirmed),
        f_pending=more,
    )
    downlink = built(who, session, contents, limit=230)
    got = read(who, downlink, ack_of=ack_of or 0)
    assert (got.payload, got.f_opts, got.frame.f_port) == (payload, answers, f_port)
    flags = got.frame.flags
    assert (flags.ack, flags.f_pending, flags.adr, got.frame.confirmed) == (ack_of is not None, more, False, confirmed)
    after = downlink.session
    if who.mac_version.is_1_1:
        assert (downlink.fcnt32, after.a_fcnt_down, after.fcnt_down) == (a_fcnt, a_fcnt + 1, fcnt)
    else:
        assert (downlink.fcnt32, after.a_fcnt_down, after.fcnt_down) == (fcnt, a_fcnt, fcnt + 1)
    assert after.conf_fcnt_down == (downlink.fcnt32 & 0xFFFF if confirmed else 0)


@pytest.mark.parametrize("who", [V1_0, V1_1], ids=["1.0", "1.1"])
def test_an_acknowledgement_needs_no_payload(who: Device) -> None:
    downlink = built(who, session_of(who, fcnt_down=FCnt32(3)), Contents(ack_of=FCnt32(0x1_0007)))
    got = read(who, downlink, ack_of=0x1_0007)
    assert (got.frame.f_port, got.payload, got.f_opts, got.frame.flags.ack) == (None, b"", b"", True)
    assert got.frame.m_type is MType.UNCONFIRMED_DATA_DOWN
    assert (downlink.fcnt32, downlink.session.fcnt_down, downlink.command) == (3, 4, None)


@pytest.mark.parametrize("who", [V1_0, V1_1], ids=["1.0", "1.1"])
def test_mac_commands_that_fill_more_than_f_opts_go_under_port_0(who: Device) -> None:
    answers = bytes(range(20))
    downlink = built(who, session_of(who), Contents(mac_answers=answers, command=command()))
    got = read(who, downlink)
    assert (got.frame.f_port, got.payload, got.f_opts) == (0, answers, b"")
    assert got.frame.flags.f_pending  # the command had to wait
    assert downlink.command is None


def test_a_command_that_fits_only_without_answers_waits_for_them() -> None:
    answers, payload = b"\x02\x10\x01", b"x" * 50
    downlink = built(V1_0, session_of(V1_0), Contents(mac_answers=answers, command=command(payload)), limit=59)
    got = read(V1_0, downlink)
    assert (got.f_opts, got.frame.f_port, got.frame.flags.f_pending) == (answers, None, True)


def test_our_requests_take_the_room_that_is_left() -> None:
    policy = MacPolicy(rx1_delay=5, rx1_dr_offset=1)
    roomy = read(V1_0, built(V1_0, session_of(V1_0), Contents(command=command(b"x" * 40)), policy=policy))
    tight_downlink = built(V1_0, session_of(V1_0), Contents(command=command(b"x" * 51)), policy=policy)
    assert roomy.f_opts
    assert read(V1_0, tight_downlink).f_opts == b""
    assert tight_downlink.session.mac.asked == b""


def test_a_payload_sealed_elsewhere_goes_as_it_is_under_its_own_counter() -> None:
    for who in (V1_0, V1_1):
        downlink = built(who, session_of(who), Contents(command=command(b"sealed", fcnt_down=FCnt32(50))))
        frame = read(who, downlink).frame
        assert (frame.frm_payload, downlink.fcnt32) == (b"sealed", 50)
        assert next_app_fcnt(entry_of(who), downlink.session) == 51


def test_what_can_never_be_sent_is_known_before() -> None:
    entry, session = entry_of(V1_0), session_of(V1_0, fcnt_down=FCnt32(10))
    sealed_entry = entry_of(device(session_keys=msgspec.structs.replace(KEYS_1_0, app_s_key=None)))
    limit = FHDR_SIZE + 1 + 4
    assert command_problem(entry, session, command(b"1234"), limit) is None
    assert command_problem(entry, session, command(b"12345"), limit) is CommandReason.TOO_LONG
    assert command_problem(sealed_entry, session, command(), 59) is CommandReason.NO_APP_S_KEY
    assert command_problem(sealed_entry, session, command(fcnt_down=FCnt32(10)), 59) is None
    assert command_problem(entry, session, command(fcnt_down=FCnt32(9)), 59) is CommandReason.COUNTER_USED
    far = FCnt32(11 + MAX_FCNT_GAP)
    assert command_problem(entry, session, command(fcnt_down=far), 59) is CommandReason.BAD_COMMAND
    used_up = session_of(V1_0, fcnt_down=FCnt32(FCNT32_MAX + 1))
    assert command_problem(entry, used_up, command(), 59) is CommandReason.COUNTER_EXHAUSTED


def test_a_counter_that_is_used_up_is_not_begun_again() -> None:
    session = session_of(V1_0, fcnt_down=FCnt32(FCNT32_MAX + 1))
    crypto = SessionCrypto(KEYS_1_0)
    contents = Contents(ack_of=FCnt32(1))
    assert build_downlink(entry_of(V1_0), crypto, session, contents, policy=PLAIN, uplink_adr=False, limit=59) is None


def test_the_counters_of_the_last_two_confirmed_downlinks_are_kept() -> None:
    session = session_of(V1_1, a_fcnt_down=FCnt32(7))
    for _ in range(2):
        session = built(V1_1, session, Contents(command=command(confirmed=True))).session
    assert (session.conf_fcnt_down, session.conf_fcnt_before) == (8, 7)


# ---- multicast -------------------------------------------------------------------------------------------------------

GROUP = MulticastGroup(name="lamps", mc_addr=DevAddr(0x01FF_0001), mc_nwk_s_key=key(60), mc_app_s_key=key(61))


def test_every_member_of_a_group_reads_what_is_sent_to_it() -> None:
    session = SessionTable([], {}, groups=[GROUP]).group_session(GROUP)
    downlink = build_multicast(GROUP, SessionTable.group_crypto(GROUP), session, command(b"on", confirmed=True))
    assert downlink is not None
    keys = SessionKeys(f_nwk_s_int_key=key(60), s_nwk_s_int_key=key(60), nwk_s_enc_key=key(60), app_s_key=key(61))
    member = device(dev_addr=GROUP.mc_addr, session_keys=keys)
    got = read(member, downlink)
    assert (got.payload, got.frame.confirmed, got.frame.f_opts) == (b"on", False, b"")
    assert (downlink.fcnt32, downlink.session.fcnt_down) == (0, 1)
    assert len(downlink.phy_payload) == 1 + FHDR_SIZE + 1 + 2 + MIC_SIZE


def test_nothing_is_built_for_a_group_under_a_used_counter_or_without_its_key() -> None:
    session = msgspec.structs.replace(SessionTable([], {}).group_session(GROUP), fcnt_down=FCnt32(5), dev_eui=EUI64(0))
    crypto = SessionTable.group_crypto(GROUP)
    assert build_multicast(GROUP, crypto, session, command(fcnt_down=FCnt32(4))) is None
    sealed = build_multicast(GROUP, crypto, session, command(b"sealed", fcnt_down=FCnt32(9)))
    assert sealed is not None
    assert sealed.session.fcnt_down == 10
    closed = msgspec.structs.replace(GROUP, mc_app_s_key=None)
    assert build_multicast(closed, SessionTable.group_crypto(closed), session, command()) is None

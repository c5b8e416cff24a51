"""The whole counter out of its half, at every edge, and what a session's functions promise by themselves."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorabridge.lorawan.crypto import MicContext, SessionCrypto
from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.frame import DataFrame, parse
from lorabridge.lorawan.session import (
    FIRST_CONTACT_EPOCHS,
    LOW_COUNTERS,
    MAX_COUNTERS_TRIED,
    MAX_FCNT_GAP,
    RECENT_FRAMES,
    FreshFrame,
    History,
    Session,
    VerifiedFrame,
    counter_candidates,
    decrypt,
    judge_counter,
    max_fcnt_gap,
    session_id_of,
    verify,
)
from lorabridge.lorawan.types import EUI64, FCNT32_MAX, FCnt16, FCnt32, MacVersion
from lorabridge.lorawan.verdict import Verdict
from tests.lorawan.builders import APP_S_KEY, DEV_ADDR, KEYS_1_0, KEYS_1_1, device, device_1_1, heard, key, uplink

counters = st.integers(0, FCNT32_MAX).map(FCnt32)
halves = st.integers(0, 0xFFFF).map(FCnt16)
EDGES = [0, 1, 0xFFFE, 0xFFFF, 0x1_0000, 0x1_FFFF, 0x2_0000, FCNT32_MAX - 0xFFFF, FCNT32_MAX - 1, FCNT32_MAX]


@pytest.mark.parametrize(
    ("last", "wire", "candidates"),
    [
        (None, 0, (0, 0x1_0000, 0x2_0000, 0x3_0000)),
        (None, 0xFFFF, (0xFFFF, 0x1_FFFF, 0x2_FFFF, 0x3_FFFF)),
        (0, 0, (0, 0x1_0000)),
        (0, 1, (1,)),
        (0, 0xFFFF, (0xFFFF,)),
        (0xFFFF, 0, (0x1_0000, 0)),
        (0xFFFF, 0xFFFF, (0xFFFF, 0x1_FFFF)),
        (0xFFFF, 0xFFFE, (0x1_FFFE, 0xFFFE)),
        (0x1_0000, 0xFFFF, (0x1_FFFF, 0xFFFF)),
        (0x1_0000, 0, (0x1_0000, 0x2_0000, 0)),
        (0x3_0005, 5, (0x3_0005, 0x4_0005, 0x2_0005, 5)),
        (0x3_0005, 6, (0x3_0006, 0x2_0006, 6)),
        (0x3_0005, 4, (0x4_0004, 0x3_0004, 0x2_0004, 4)),
        (FCNT32_MAX, 0xFFFF, (FCNT32_MAX, FCNT32_MAX - 0x1_0000, 0xFFFF)),
        (FCNT32_MAX, 0, (0xFFFF_0000, 0xFFFE_0000, 0)),
        (FCNT32_MAX - 1, 0xFFFF, (FCNT32_MAX, FCNT32_MAX - 0x1_0000, 0xFFFF)),
    ],
)
def test_the_counters_that_sixteen_bits_can_stand_for(last: int | None, wire: int, candidates: tuple[int, ...]) -> None:
    assert counter_candidates(None if last is None else FCnt32(last), FCnt16(wire)) == candidates


@given(st.none() | counters | st.sampled_from(EDGES).map(FCnt32), halves)
def test_candidates_have_these_bits_are_few_and_differ(last: FCnt32 | None, wire: FCnt16) -> None:
    found = counter_candidates(last, wire)
    assert 1 <= len(found) <= MAX_COUNTERS_TRIED
    assert len(set(found)) == len(found)
    assert all(0 <= counter <= FCNT32_MAX and counter & 0xFFFF == wire for counter in found)
    assert FCnt32(wire) in found


@given(counters | st.sampled_from(EDGES).map(FCnt32), st.integers(-0xFFFF, 0xFFFF))
@example(FCnt32(0xFFFF), 1)
@example(FCnt32(0xFFFF), 0xFFFF)
@example(FCnt32(0x1_0000), -0xFFFF)
def test_every_counter_within_reach_of_the_last_one_is_tried(last: FCnt32, step: int) -> None:
    true = last + step
    if 0 <= true <= FCNT32_MAX:
        found = counter_candidates(last, FCnt16(true & 0xFFFF))
        assert true in found
        assert step <= 0 or found[0] == true


@given(st.integers(0, FIRST_CONTACT_EPOCHS * 0x1_0000 - 1))
def test_a_device_never_heard_is_found_within_the_first_epochs(true: int) -> None:
    assert true in counter_candidates(None, FCnt16(true & 0xFFFF))


@pytest.mark.parametrize("version", MacVersion)
def test_the_gap_is_limited_where_the_version_limits_it(version: MacVersion) -> None:
    limited = version in {MacVersion.V1_0_0, MacVersion.V1_0_1, MacVersion.V1_0_2, MacVersion.V1_0_3}
    assert max_fcnt_gap(device(mac_version=version)) == (MAX_FCNT_GAP if limited else None)
    assert max_fcnt_gap(device(mac_version=version, max_fcnt_gap=7)) == 7
    assert max_fcnt_gap(device(mac_version=version, max_fcnt_gap=0)) is None


def data_frame(phy_payload: bytes) -> DataFrame:
    frame = parse(phy_payload)
    assert isinstance(frame, DataFrame)
    return frame


@given(counters, st.binary(max_size=50), st.integers(0, 135))
def test_one_flipped_bit_anywhere_is_not_verified(fcnt32: FCnt32, payload: bytes, bit: int) -> None:
    phy_payload = uplink(device(), fcnt32, payload)
    crypto = SessionCrypto(KEYS_1_0)
    assert verify(data_frame(phy_payload), fcnt32, crypto, None) is not None
    flipped = bytearray(phy_payload)
    at = (40 + bit) % (8 * len(phy_payload))  # MHDR and DevAddr are asked for elsewhere
    flipped[at // 8] ^= 1 << at % 8
    frame = msgspec.structs.replace(data_frame(phy_payload), message=bytes(flipped[:-4]), mic=bytes(flipped[-4:]))
    assert verify(frame, fcnt32, crypto, None) is None


def test_a_mic_of_1_1_takes_both_halves() -> None:
    context = MicContext(0, 5, 0)
    frame, crypto = data_frame(uplink(device_1_1(), 9, context=context)), SessionCrypto(KEYS_1_1)
    counter = FCnt32(9)
    assert verify(frame, counter, crypto, (MicContext(), context)) == VerifiedFrame(frame, counter)
    assert verify(frame, counter, crypto, ()) is None
    assert verify(frame, counter, crypto, (MicContext(0, 4, 0), MicContext(0, 5, 1), MicContext(1, 5, 0))) is None
    assert verify(frame, FCnt32(10), crypto, (context,)) is None
    for half in (frame.mic[2:] + frame.mic[:2], frame.mic[:2] + bytes(2), bytes(2) + frame.mic[2:]):
        assert verify(frame.with_mic(half), counter, crypto, (context,)) is None


@pytest.mark.parametrize("f_port", [None, 0, 1, 255])
@pytest.mark.parametrize("sender", [device(), device_1_1()])
def test_a_fresh_frame_is_read_with_the_key_of_its_port(f_port: int | None, sender: object) -> None:
    assert isinstance(sender, type(device()))
    assert sender.session_keys is not None
    f_opts = b"" if f_port == 0 else b"\x02\x0b\x01"
    payload = b"" if f_port is None else b"plaintext of more than one block"
    frame = data_frame(uplink(sender, 70_000, payload, f_port, f_opts))
    fresh = FreshFrame(VerifiedFrame(frame, FCnt32(70_000)))
    assert decrypt(fresh, sender, SessionCrypto(sender.session_keys)) == (payload, f_opts, False)


def sealed_keys(keys: SessionKeys) -> SessionKeys:
    return msgspec.structs.replace(keys, app_s_key=None)


@pytest.mark.parametrize(("f_port", "sealed"), [(None, False), (0, False), (1, True)])
def test_without_app_s_key_only_application_payloads_stay_sealed(f_port: int | None, sealed: bool) -> None:
    payload = b"" if f_port is None else b"secret"
    phy_payload = uplink(device(), 3, payload, f_port)
    frame, crypto = data_frame(phy_payload), SessionCrypto(sealed_keys(KEYS_1_0))
    found, f_opts, is_sealed = decrypt(FreshFrame(VerifiedFrame(frame, FCnt32(3))), device(), crypto)
    assert (found, is_sealed) == (frame.frm_payload if sealed else payload, sealed)
    assert f_opts == b""
    assert crypto.sealed
    assert not SessionCrypto(KEYS_1_0).sealed


def test_a_session_id_changes_with_address_and_network_keys_only() -> None:
    same = session_id_of(DEV_ADDR, SessionCrypto(KEYS_1_1))
    assert len(same) == 8
    assert session_id_of(DEV_ADDR, SessionCrypto(sealed_keys(KEYS_1_1))) == same
    others = [
        msgspec.structs.replace(KEYS_1_1, **{name: key(99)})
        for name in ("f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key")
    ]
    found = {session_id_of(DEV_ADDR, SessionCrypto(keys)) for keys in others}
    found.add(session_id_of(type(DEV_ADDR)(DEV_ADDR + 1), SessionCrypto(KEYS_1_1)))
    assert len(found | {same}) == 5


def test_the_history_of_a_bridge_without_one_knows_no_frame() -> None:
    assert not History().heard(b"session!", FCnt32(1), b"\1\2\3\4")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_a_session_remembers_little_and_changes_nothing_in_place(steps: list[int]) -> None:
    sender, crypto = device(), SessionCrypto(KEYS_1_0)
    session, fcnt32 = Session(session_id=bytes(8), dev_eui=EUI64(1)), -1
    for step in steps:
        fcnt32 += step
        frame = data_frame(uplink(sender, fcnt32))
        verified = verify(frame, FCnt32(fcnt32), crypto, None)
        assert verified is not None
        before = msgspec.structs.asdict(session)
        judged = judge_counter(verified, session, sender, heard(b""), 1, History())
        assert judged.verdict is Verdict.ACCEPTED
        assert judged.session is not None
        assert msgspec.structs.asdict(session) == before
        session = judged.session
        assert session.fcnt_up == fcnt32
        assert len(session.recent) <= 16 * RECENT_FRAMES
        assert len(session.first_mics) <= 4 * LOW_COUNTERS
        assert APP_S_KEY.reveal() not in session.recent + session.first_mics

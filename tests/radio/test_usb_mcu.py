"""The controller of a USB concentrator, behind a pseudo-terminal that speaks its protocol, well and badly."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serial.tools.list_ports_common import ListPortInfo

from lorabridge.errors import TransientError
from lorabridge.radio.mcu_frames import ANSWER_BYTES, Command, Looks, build_request, find_answer, parse_status
from lorabridge.radio.serial_port import HINTS, PortError, PortFault, open_port
from lorabridge.radio.usb_mcu import Mcu, UsbPort, find_ports
from tests.radio.pty_device import UNIQUE_ID, VERSION, Script, answer, attached, concentrator, silent


def _fault(port: str, *, timeout: float = 0.6) -> PortError:
    """What a ping of this port fails with."""
    with pytest.raises(PortError) as caught, Mcu(port, timeout=timeout) as mcu:
        mcu.ping()
    return caught.value


def test_a_concentrator_says_who_it_is_how_warm_it_is_and_is_reset() -> None:
    with attached(concentrator) as device, Mcu(device.path) as mcu:
        assert mcu.ping().unique_id == "0035002b5453500f20343737"
        assert mcu.ping().firmware == "V01.00.00"
        assert (mcu.status().uptime_ms, mcu.status().temperature_c) == (1_000_000, 25.31)
        mcu.reset()
        assert device.heard[-5:][1:] == b"\x00\x01\x03\x00"


def test_every_request_has_an_id_of_its_own() -> None:
    with attached(concentrator) as device, Mcu(device.path) as mcu:
        for _ in range(300):
            mcu.ping()
        idents = device.heard[::4]
    assert [(later - earlier) % 256 for earlier, later in pairwise(idents)] == [1] * 299


def test_frost_is_below_zero() -> None:
    assert parse_status(bytes.fromhex("ffffffff" + "fc18")).temperature_c == -10.0


@pytest.mark.parametrize("noise", [b"\x00", b"\xff" * 40, b"$GPRMC,1*00\r\n", answer(b"\x00\x00\x00\x01", b"stale!")])
def test_an_answer_amid_what_others_left_over_is_found(noise: bytes) -> None:
    with attached(lambda request: noise + concentrator(request)) as device, Mcu(device.path) as mcu:
        assert mcu.ping().firmware == "V01.00.00"


def test_an_answer_in_single_bytes_is_found() -> None:
    with attached(silent) as device, Mcu(device.path, timeout=5) as mcu:

        def drip(request: bytes) -> bytes:
            for byte in concentrator(request):
                device.send(bytes([byte]))
                time.sleep(0.001)
            return b""

        device._script = drip
        assert mcu.ping().unique_id == UNIQUE_ID.hex()


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (silent, PortFault.SILENT),
        (lambda request: concentrator(request)[:3], PortFault.INCOMPLETE),
        (lambda request: concentrator(request)[:-1], PortFault.INCOMPLETE),
        (lambda request: b"noise" + concentrator(request)[:9], PortFault.INCOMPLETE),
        (lambda _: b"$GPGGA,no,concentrator*00\r\n", PortFault.GARBAGE),
        (lambda _: bytes(range(256)) * 16, PortFault.GARBAGE),
        (lambda request: answer(request, b"\x02\x03" + UNIQUE_ID + VERSION), PortFault.OTHER_DEVICE),
        (lambda request: answer(request, UNIQUE_ID + b"Marlin2.1"), PortFault.OTHER_DEVICE),
        (lambda request: bytes([request[0], 0, 0, 0xFF]), PortFault.OTHER_DEVICE),
        (lambda request: request, PortFault.GARBAGE),  # a port that echoes, as a modem does
        (lambda _: None, PortFault.GONE),
    ],
)
def test_what_is_wrong_with_a_device_is_told_by_name_with_what_to_do(script: Script, fault: PortFault) -> None:
    with attached(script) as device:
        error = _fault(device.path)
        assert error.fault is fault
        assert str(error) == f"{device.path}: {error.says} ({HINTS[fault]})"
    assert isinstance(error, TransientError)


def test_an_answer_of_another_request_is_none() -> None:
    def late(request: bytes) -> bytes:
        return bytes([request[0] ^ 1]) + concentrator(request)[1:]

    with attached(late) as device:
        assert _fault(device.path).fault is PortFault.OTHER_DEVICE


def test_a_refused_reset_is_told() -> None:
    with attached(lambda request: answer(request, b"\x01")) as device, Mcu(device.path) as mcu:
        with pytest.raises(PortError, match="refused the reset with status 1") as caught:
            mcu.reset()
        assert caught.value.fault is PortFault.REFUSED


def test_a_port_that_disappears_instead_of_answering_was_reset() -> None:
    with attached(lambda _: None) as device, Mcu(device.path) as mcu:
        mcu.reset()
        with pytest.raises(PortError) as caught:
            mcu.ping()
        assert caught.value.fault is PortFault.GONE


def test_a_device_that_never_stops_talking_ends_with_the_time() -> None:
    with attached(silent) as device, Mcu(device.path, timeout=0.3) as mcu:

        def babble(request: bytes) -> bytes:
            for _ in range(40):
                device.send(b"\x55" * 1000)
            return b""

        device._script = babble
        began = time.monotonic()
        with pytest.raises(PortError) as caught:
            mcu.ping()
        assert caught.value.fault is PortFault.GARBAGE
        assert time.monotonic() - began < 5


def test_no_such_port_and_no_port_at_all_are_told_apart(tmp_path: Path) -> None:
    assert _fault(str(tmp_path / "ttyACM9")).fault is PortFault.ABSENT
    (tmp_path / "file").touch()
    for path in (str(tmp_path / "file"), str(tmp_path), "/dev/null"):
        assert _fault(path).fault is PortFault.NOT_SERIAL


def test_a_port_that_another_process_has_is_not_touched_and_the_process_is_named() -> None:
    with attached(concentrator) as device:
        holding = f"import os; os.open({device.path!r}, os.O_RDWR | os.O_NOCTTY); print('open', flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            error = _fault(device.path)
            other.stdin.close()
        assert error.fault is PortFault.TAKEN
        assert f"(pid {other.pid})" in error.says
        assert device.heard == b""
        with Mcu(device.path) as mcu:
            assert mcu.ping().firmware == "V01.00.00"


def test_a_port_that_is_locked_is_taken() -> None:
    with attached(concentrator) as device, Mcu(device.path):
        assert _fault(device.path).fault is PortFault.TAKEN


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an account without rights")
def test_without_the_right_to_the_port_the_group_is_named() -> None:
    with attached(concentrator) as device:
        Path(device.path).chmod(0o600)
        code = (
            "import os, sys; from lorabridge.radio.serial_port import *; os.setgid(65534); os.setuid(65534)\n"
            f"try: open_port({device.path!r}, 9600)\n"
            "except PortError as error: print(error.fault.name, error)"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.stdout.startswith("PERMISSION ")
    assert "dialout" in told.stdout


def test_a_speed_that_is_none_is_told() -> None:
    with attached(silent) as device, pytest.raises(PortError) as caught:
        open_port(device.path, -1)
    assert caught.value.fault is PortFault.NOT_SERIAL


def test_only_ports_with_the_identity_of_a_concentrator_are_candidates() -> None:
    def port(path: str, vid: int | None, pid: int | None) -> ListPortInfo:
        made = ListPortInfo(path)
        made.vid, made.pid, made.serial_number, made.product = vid, pid, "S1", "STM32 Virtual COM Port"
        return made

    listed = [
        port("/dev/ttyACM1", 0x0483, 0x5740),
        port("/dev/ttyUSB0", 0x0403, 0x6001),
        port("/dev/ttyS0", None, None),
    ]
    listed.append(port("/dev/ttyACM0", 0x0483, 0x5740))
    found = find_ports(listed)
    assert [port.path for port in found] == ["/dev/ttyACM0", "/dev/ttyACM1"]
    assert found[0] == UsbPort(path="/dev/ttyACM0", serial_number="S1", product="STM32 Virtual COM Port")


def test_the_ports_of_this_machine_can_be_listed() -> None:
    assert all(Path(port.path).exists() for port in find_ports())


@given(st.binary(max_size=300), st.integers(0, 255), st.sampled_from(Command))
def test_any_bytes_are_judged_without_an_error(heard: bytes, ident: int, command: Command) -> None:
    found = find_answer(heard, ident, command)
    assert (found.looks is Looks.WHOLE) == (len(found.payload) == ANSWER_BYTES[command])


@given(st.binary(max_size=100), st.integers(0, 255), st.sampled_from(Command), st.data())
def test_an_answer_is_found_behind_any_bytes(noise: bytes, ident: int, command: Command, data: st.DataObject) -> None:
    size = ANSWER_BYTES[command]
    payload = data.draw(st.binary(min_size=size, max_size=size))
    whole = answer(build_request(ident, command), payload)
    if whole[:4] not in noise + whole[:3]:
        assert find_answer(noise + whole, ident, command).payload == payload

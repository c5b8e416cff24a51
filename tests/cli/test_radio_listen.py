"""`lorabridge radio listen`: what arrives is shown, and nothing else happens to it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from websockets.sync.client import connect

from lorabridge.cli.heard_lines import Table, facts
from lorabridge.cli.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, main
from lorabridge.lorawan.air import Antenna, CrcStatus, FskDataRate, LoraDataRate, Reception
from lorabridge.lorawan.answer import Judge, answer_line
from lorabridge.lorawan.device import Device
from lorabridge.lorawan.frame import JoinAccept, Proprietary, build
from lorabridge.lorawan.session import Session
from lorabridge.lorawan.types import DevAddr
from lorabridge.store.database import Batch, SessionChange, Store
from tests.cli.sending import GATEWAY, PATIENCE, forwarder, free_port, push, push_data, rxpk
from tests.daemon.config_help import Installation, device_toml
from tests.lorawan.builders import Bridge, device, heard, uplink
from tests.lorawan.joining import join_request, joiner, rejoin_request, root_of
from tests.radio.station_peer import FRAME_ON_AIR, UPDF, VERSION
from tests.radio.sx1302_plan import PLAN
from tests.store.store_help import with_store

METER = device()


@contextlib.contextmanager
def listening(*words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lorabridge.cli.main", "radio", "listen", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextlib.contextmanager
def holding(code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has something open, once it said so."""
    command = [sys.executable, "-c", f"{code}\nprint('open', flush=True)\ninput()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def port_taken(port: int) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return holding(f"import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', {port}))")


def with_radios(installation: Installation, *tables: str) -> None:
    head, _, _ = installation.text.partition("[[radio]]")
    installation.write(head + "".join(f"[[radio]]\n{table}\n" for table in tables))


def udp(name: str, port: int) -> str:
    return f'type = "semtech_udp"\nname = "{name}"\nport = {port}'


def recorded(path: Path, *frames: bytes) -> Path:
    """A recording, the frames ten seconds apart."""
    lines = (
        {"received_at": 1_700_000_000_000_000_000 + number * 10**10, "gateway_eui": GATEWAY}
        | {"rxpk": json.loads(rxpk(frame)[12:])["rxpk"][0]}
        for number, frame in enumerate(frames)
    )
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_frame_is_shown_while_it_listens_and_a_signal_is_a_clean_end(number: signal.Signals) -> None:
    port = free_port()
    with listening("--udp", f"127.0.0.1:{port}") as process, forwarder(port) as end:
        push(end, push_data({"stat": {"rxnb": 1}}))
        push(end, rxpk(uplink(METER, 7)))
        assert process.stdout is not None
        head = process.stdout.readline().split()
        row = process.stdout.readline().split()
        process.send_signal(number)
        rest, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_OK
    assert head == ["UTC", "gateway", "MHz", "rate", "RSSI", "SNR", "CRC", "len", "type", "DevAddr", "FCnt", "Port"]
    assert row[1:] == [GATEWAY, *["868.1000", "SF7/125", "-60", "7.5", "ok", "18", "up", "260b1234", "7", "7"]]
    assert rest == ""
    assert told.splitlines() == [
        f"listening to udp (127.0.0.1 port {port}); Ctrl-C ends it",
        f"gateway {GATEWAY} is there (udp)",
        "frames: 1; left out: 0 unreadable, 0 for want of room",
    ]


def test_a_gateway_that_calls_is_told_before_any_frame() -> None:
    port = free_port()
    with listening("--udp", f"127.0.0.1:{port}") as process, forwarder(port) as end:
        push(end, bytes.fromhex(f"02616202{GATEWAY}"), answer=bytes.fromhex("02616204"))
        assert process.stderr is not None
        assert process.stderr.readline().startswith("listening")
        assert process.stderr.readline() == f"gateway {GATEWAY} is there (udp)\n"


def test_a_line_of_json_has_everything_and_can_be_given_to_decode() -> None:
    port, frame = free_port(), uplink(METER, 7)
    with listening("--udp", f"127.0.0.1:{port}", "--json", "--count", "1") as process, forwarder(port) as end:
        push(end, rxpk(frame))
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_OK
    (line,) = output.splitlines()
    told = json.loads(line)
    assert told["time"].endswith("Z")
    assert told.pop("received_at") // 10**9 > 1_700_000_000
    del told["time"]
    assert told == {
        "source": "udp",
        "gateway_eui": GATEWAY,
        "frequency": 868_100_000,
        "data_rate": "SF7BW125",
        "code_rate": "4/5",
        "rssi_dbm": -60.0,
        "snr_db": 7.5,
        "crc": "ok",
        "size": 18,
        "phy_payload": frame.hex(),
        "m_type": "unconfirmed_data_up",
        "dev_addr": "260b1234",
        "fcnt16": 7,
        "f_port": 7,
    }
    answer = answer_line(line.encode(), Judge([METER]))
    assert (answer["verdict"], answer["device"]) == ("accepted", "meter")


def test_time_and_count_end_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["radio", "listen", "--udp", f"{free_port()}", "--seconds", "0.01"]) == EXIT_OK
    assert "frames: 0" in capsys.readouterr().err
    path = recorded(tmp_path / "roof.jsonl", *(uplink(METER, number) for number in range(5)))
    assert main(["radio", "listen", "--recording", str(path), "--count", "3"]) == EXIT_OK
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3


def test_a_reader_that_went_away_ends_it_without_a_traceback() -> None:
    port = free_port()
    with listening("--udp", f"127.0.0.1:{port}") as process, forwarder(port) as end:
        push(end, rxpk(uplink(METER, 1)))
        assert process.stdout is not None
        assert process.stdout.readline().startswith("UTC")
        process.stdout.close()
        with contextlib.suppress(ConnectionRefusedError, TimeoutError):
            for number in range(3):
                end.send(rxpk(uplink(METER, number)))
                end.recv(100)
        assert process.wait(PATIENCE) == EXIT_FAILED
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        process.stdout = None


def test_a_station_that_connects_is_heard_too(tmp_path: Path) -> None:
    installation, port = Installation(tmp_path), free_port()
    with_radios(installation, f'type = "basics_station"\nregion = "EU868"\nport = {port}')
    with listening("--config", str(installation.path), "--json", "--count", "1") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"listening to station (127.0.0.1 port {port}); Ctrl-C ends it\n"
        with connect(f"ws://127.0.0.1:{port}/router/aa55:5a00:0:1", close_timeout=PATIENCE) as station:
            station.send(json.dumps(VERSION))
            assert json.loads(station.recv(PATIENCE))["msgtype"] == "router_config"
            station.send(json.dumps(UPDF))
            output, told = process.communicate(timeout=PATIENCE)
    line = json.loads(output)
    assert (line["source"], line["gateway_eui"], line["phy_payload"]) == ("station", GATEWAY, FRAME_ON_AIR.hex())
    assert (line["dev_addr"], line["fcnt16"], line["data_rate"]) == ("f4332211", 3, "SF7BW125")
    assert "a station is connected" in told


def test_every_radio_of_the_configuration_is_heard_or_the_one_that_is_named(tmp_path: Path) -> None:
    installation, ports = Installation(tmp_path), (free_port(), free_port())
    with_radios(installation, udp("north", ports[0]), udp("south", ports[1]))
    config = ("--config", str(installation.path), "--json")
    with listening(*config, "--count", "2") as process, forwarder(ports[0]) as north, forwarder(ports[1]) as south:
        push(north, rxpk(uplink(METER, 1)))
        push(south, rxpk(uplink(METER, 1)))
        output, _ = process.communicate(timeout=PATIENCE)
    assert {json.loads(line)["source"] for line in output.splitlines()} == {"north", "south"}
    with (
        port_taken(ports[0]),
        listening(*config, "--radio", "south", "--count", "1") as process,
        forwarder(ports[1]) as south,
    ):
        push(south, rxpk(uplink(METER, 2)))
        output, told = process.communicate(timeout=PATIENCE)
    assert json.loads(output)["source"] == "south"
    assert "in use" not in told
    assert not (tmp_path / "state" / "lorabridge.db").exists()


def test_a_radio_that_is_not_there_is_told_with_the_one_that_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installation = Installation(tmp_path)
    assert main(["radio", "listen", "--config", str(installation.path), "--radio", "udb"]) == EXIT_CONFIG
    told = capsys.readouterr().err
    assert "there is no radio 'udb'" in told
    assert "did you mean udp?" in told


def test_a_port_that_the_bridge_has_is_told_with_the_process_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with port_taken(port) as other:
        assert main(["radio", "listen", "--udp", f"127.0.0.1:{port}"]) == EXIT_FAILED
    told = capsys.readouterr()
    assert f"(pid {other.pid})" in told.err
    assert "systemctl stop lorabridge" in told.err
    assert told.out == ""
    assert len(told.err.splitlines()) == 1


def test_a_radio_that_fails_for_another_reason_is_told_without_that_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["radio", "listen", "--udp", f"192.0.2.1:{free_port()}"]) == EXIT_FAILED
    told = capsys.readouterr().err
    assert "Cannot assign requested address" in told
    assert "stop that program" not in told


def test_a_radio_that_is_taken_does_not_stop_another_and_is_heard_once_it_is_free(tmp_path: Path) -> None:
    installation, ports = Installation(tmp_path), (free_port(), free_port())
    with_radios(installation, udp("north", ports[0]), udp("south", ports[1]))
    with (
        port_taken(ports[0]) as other,
        listening("--config", str(installation.path), "--json", "--count", "2") as process,
        forwarder(ports[0]) as north,
        forwarder(ports[1]) as south,
    ):
        push(south, rxpk(uplink(METER, 1)))
        other.kill()
        other.wait(PATIENCE)
        push(north, rxpk(uplink(METER, 1)))
        output, told = process.communicate(timeout=PATIENCE)
    assert [json.loads(line)["source"] for line in output.splitlines()] == ["south", "north"]
    assert f"(pid {other.pid}) (stop that program" in told
    assert "; it is tried again" in told


def test_a_concentrator_that_another_process_drives_is_not_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installation, device_file, port = Installation(tmp_path), tmp_path / "ttyACM0", free_port()
    device_file.touch()
    plan = tmp_path / "global_conf.json"
    plan.write_text(json.dumps({"SX130x_conf": {**PLAN, "com_path": str(device_file)}}))
    concentrator = f'type = "sx1302"\nconfiguration = "{plan}"\nlibrary = "{tmp_path}/none.so"'
    with holding(f"held = open({str(device_file)!r})") as other:
        with_radios(installation, concentrator)
        assert main(["radio", "listen", "--config", str(installation.path)]) == EXIT_FAILED
        assert f"{device_file} is in use by python" in capsys.readouterr().err
        with_radios(installation, concentrator, udp("north", port))
        assert main(["radio", "listen", "--config", str(installation.path), "--seconds", "0.01"]) == EXIT_OK
    told = capsys.readouterr().err
    assert f"(pid {other.pid})" in told
    assert f"listening to north (127.0.0.1 port {port});" in told


def commit(installation: Installation, sender: Device, fcnt32: int) -> Path:
    """A store whose session of this device stands at this counter."""
    bridge = Bridge(sender)
    (decision,) = bridge.hear_all(heard(uplink(sender, fcnt32)))
    assert decision.session is not None
    change = SessionChange(decision.session, -1)
    with_store(installation.config.store, lambda store: store.commit(Batch(changes=(change,))))
    return Path(installation.config.store.path)


async def sessions(store: Store) -> dict[bytes, Session]:
    return store.sessions()


def test_frames_are_judged_by_the_counters_of_the_store_and_none_of_them_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = device(dev_addr=DevAddr(0x260B_9999))
    frames = [uplink(METER, number) for number in (69_999, 70_000, 70_001, 70_001)] + [uplink(stranger, 1)]
    path = recorded(tmp_path / "roof.jsonl", *frames)
    installation = Installation(tmp_path, METER)
    database = commit(installation, METER, 70_000)
    before = database.read_bytes()
    for _ in range(2):
        words = ["--config", str(installation.path), "--recording", str(path), "--decode", "--json"]
        assert main(["radio", "listen", *words]) == EXIT_OK
        output = capsys.readouterr().out
        told = [json.loads(line) for line in output.splitlines()]
        verdicts = ["replay", "retransmission", "accepted", "retransmission", "unknown_device"]
        assert [line["verdict"] for line in told] == verdicts
        assert [line.get("fcnt32") for line in told] == [69_999, 70_000, 70_001, 70_001, None]
        assert [line["device"] for line in told] == ["meter"] * 4 + [None]
        keys = METER.session_keys
        assert keys is not None
        assert keys.app_s_key is not None
        for key in (keys.f_nwk_s_int_key, keys.app_s_key):
            assert key.reveal().hex() not in output
        assert b"hello".hex() not in output
    assert database.read_bytes() == before
    assert [session.fcnt_up for session in with_store(installation.config.store, sessions).values()] == [70_000]


def test_without_a_database_every_counter_is_new_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(tmp_path / "roof.jsonl", uplink(METER, 9))
    installation = Installation(tmp_path, METER)
    words = ["--config", str(installation.path), "--recording", str(path), "--decode"]
    assert main(["radio", "listen", *words]) == EXIT_OK
    told = capsys.readouterr()
    assert told.out.splitlines()[1].endswith(" accepted meter")
    assert "no database yet" in told.err
    assert not Path(installation.config.store.path).exists()


def test_devices_can_be_given_without_any_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, devices = recorded(tmp_path / "roof.jsonl", uplink(METER, 9)), tmp_path / "devices.toml"
    devices.touch(mode=0o600)
    devices.write_text(device_toml(METER))
    words = ["--recording", str(path), "--devices", str(devices)]
    assert main(["radio", "listen", *words]) == EXIT_OK
    assert capsys.readouterr().out.splitlines()[1].endswith(" accepted meter")


OTAA = joiner()
STRANGE: list[tuple[Reception, str]] = [
    (heard(uplink(METER, 65535, f_port=None)), "up        260b1234 65535   -"),
    (heard(join_request(OTAA, 1)), f"join      {OTAA.dev_eui}"),
    (heard(rejoin_request(OTAA, 0, 1, root_of(OTAA))), f"rejoin    {OTAA.dev_eui}"),
    (heard(build(JoinAccept(mhdr=0x20, encrypted=bytes(16)))), "join-acc  -"),
    (heard(build(Proprietary(mhdr=0xE0, payload=bytes(9)))), "propriet  -"),
    (heard(b"\x40\1"), "ok    2 too_short"),
    (heard(b"\x00" + bytes(30)), "ok   31 bad_join_request_length"),
]


@pytest.mark.parametrize(("reception", "ends"), STRANGE)
def test_a_row_says_what_the_frame_is(reception: Reception, ends: str) -> None:
    for columns in (80, 120):
        row = Table(columns, judged=False).row(facts(reception))
        assert row.endswith(ends)
        assert len(row) <= columns


@pytest.mark.parametrize(
    ("columns", "gateway", "lines"),
    [(80, "3a14c", 2), (100, "3a14c", 2), (120, "3a14c", 1), (140, "0016c001f153a14c", 1)],
)
def test_a_table_with_verdicts_fits_into_the_terminal(columns: int, gateway: str, lines: int) -> None:
    table, judge = Table(columns, judged=True), Judge([METER])
    widest = replace(heard(uplink(METER, 65535)), antennas=(Antenna(rssi_dbm=-120.0, snr_db=-20.5),))
    row = table.row(facts(widest, judge.hear(widest))).splitlines()
    assert len(row) == lines
    assert row[-1].endswith("accepted meter")
    assert row[0].split()[1] == gateway
    assert all(len(line) <= columns for line in row)
    assert table.head.endswith("verdict") is (lines == 1)
    noise = heard(b"\1", crc=CrcStatus.BAD)
    assert table.row(facts(noise, judge.hear(noise))).endswith("radio_crc")


def test_the_antenna_that_heard_it_best_is_shown_and_rates_of_every_kind() -> None:
    antennas = (Antenna(snr_db=1.0), Antenna(rssi_dbm=-90.0, snr_db=2.0), Antenna(rssi_dbm=-80.0, snr_db=3.0))
    told = facts(replace(heard(b"\1"), antennas=antennas, data_rate=LoraDataRate(12, 812_500)))
    assert (told["rssi_dbm"], told["snr_db"], told["data_rate"]) == (-80.0, 3.0, "SF12BW812.5")
    told = facts(replace(heard(b"\1", crc=CrcStatus.NONE), data_rate=FskDataRate(50_000)))
    assert (told["rssi_dbm"], told["data_rate"], told["crc"]) == (None, 50_000, "none")
    assert "FSK/50k     -     - -     1" in Table(80, judged=False).row(told)
    signal_only = facts(replace(heard(b"\1"), antennas=(Antenna(signal_rssi_dbm=-70.5),)))
    assert signal_only["rssi_dbm"] == -70.5

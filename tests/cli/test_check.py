"""`lorabridge check`: everything that is wrong with a gateway, at once, before the service finds out."""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zmq

from lorabridge.cli.main import main
from lorabridge.lorawan.types import EUI64
from lorabridge.simulation.pki import new_ec_key
from tests.daemon.config_help import GATEWAY, SMALLEST, Installation
from tests.lorawan.builders import device, heard, uplink

METER = device()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setitem(sys.modules, "zmq", zmq)
    return Installation(tmp_path, METER)


def _checked(gateway: Installation, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["check", "--config", str(gateway.path)])
    told = capsys.readouterr()
    assert told.err == ""
    return status, told.out


def _snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def test_a_whole_set_up_is_in_order_and_nothing_is_changed_by_looking(
    gateway: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _snapshot(gateway.folder)
    status, told = _checked(gateway, capsys)
    assert status == 0
    assert told == f"{gateway.pki.gateway.certificate}: warning: {_expiry(gateway)}\nin order, 1 warning(s)\n"
    assert _snapshot(gateway.folder) == before


def _expiry(gateway: Installation) -> str:
    """A throw-away certificate is always about to expire."""
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415  # for this one line

    until = load_pem_x509_certificate(gateway.pki.gateway.certificate.read_bytes()).not_valid_after_utc
    return f"expires on {until:%Y-%m-%d} (replace it in time)"


def _missing_certificate(gateway: Installation) -> str:
    gateway.pki.gateway.certificate.unlink()
    return f"{gateway.pki.gateway.certificate}: cannot be read"


def _open_private_key(gateway: Installation) -> str:
    gateway.pki.gateway.key.chmod(0o644)
    return f"{gateway.pki.gateway.key}: can be read by others (chmod 600 {gateway.pki.gateway.key})"


def _key_of_another(gateway: Installation) -> str:
    other = gateway.pki.devices.client(GATEWAY, new_ec_key(), "other")
    gateway.write(gateway.text.replace(str(gateway.pki.gateway.key), str(other.key)))
    return f"{other.key}: does not match the certificate"


def _expired(gateway: Installation) -> str:
    past = datetime.now(UTC) - timedelta(days=3)
    old = gateway.pki.devices.client(GATEWAY, new_ec_key(), "old", until=past)
    text = gateway.text.replace(str(gateway.pki.gateway.key), str(old.key))
    gateway.write(text.replace(str(gateway.pki.gateway.certificate), str(old.certificate)))
    return f"{old.certificate}: expired on {past:%Y-%m-%d}"


def _no_roots(gateway: Installation) -> str:
    gateway.pki.ca_file.write_text("nothing", encoding="utf-8")
    return f"{gateway.pki.ca_file}: holds no certificate in PEM form"


def _open_device_file(gateway: Installation) -> str:
    (gateway.devices / "all.toml").chmod(0o640)
    return f"others can read or change {gateway.devices / 'all.toml'} (mode 640)"


def _open_device_folder(gateway: Installation) -> str:
    gateway.devices.chmod(0o777)
    return f"{gateway.devices}: others can put device files into this folder"


def _same_device_twice(gateway: Installation) -> str:
    gateway.write_devices(METER, METER)
    return "has address 260b1234 and network key of another device"


def _no_devices_at_all(gateway: Installation) -> str:
    gateway.write(gateway.text.replace(str(gateway.devices), "/nowhere/devices.d"))
    return "cannot read /nowhere/devices.d"


def _device_of_1_1_without_region(gateway: Installation) -> str:
    keys = "\n".join(
        f'{name} = "{os.urandom(16).hex()}"' for name in ("f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key")
    )
    file = gateway.devices / "new.toml"
    file.touch(mode=0o600)
    file.write_text(
        f'[[device]]\nname = "new"\ndev_eui = "{EUI64(7)}"\nmac_version = "1.1.0"\ndev_addr = "26000001"\n{keys}\n',
        encoding="utf-8",
    )
    gateway.write(gateway.text.replace('region = "EU868"\n', ""))
    return f"{gateway.devices}: device new: a device of 1.1 needs a region"


def _form_that_numbers_data_rates_without_region(gateway: Installation) -> str:
    text = gateway.text.replace('region = "EU868"\n', "")
    gateway.write(text.replace("[aws_iot]\n", '[aws_iot]\nformat = "aws-lorawan"\n'))
    return f'{gateway.devices}: device meter: format = "aws-lorawan" numbers data rates'


def _topic_of_another_application(gateway: Installation) -> str:
    topic = "application/1/device/{dev_eui}/event/up"
    text = gateway.text.replace("[aws_iot]\n", '[aws_iot]\nformat = "chirpstack"\n')
    gateway.write(f'{text}[aws_iot.topics]\nuplink = "{topic}"\n')
    return f"{gateway.path}: aws_iot.topics.uplink: begins as a topic of ChirpStack, but is not the one of these"


def _no_recording(gateway: Installation) -> str:
    gateway.write(f'{gateway.text}[[radio]]\ntype = "recording"\npath = "{gateway.folder}/gone.jsonl"\n')
    return f"{gateway.path}: radio[2].path: {gateway.folder}/gone.jsonl cannot be read"


def _no_concentrator_library(gateway: Installation) -> str:
    gateway.write(f'{gateway.text}[[radio]]\ntype = "sx1302"\nlibrary = "{gateway.folder}/gone.so"\n')
    return f"{gateway.path}: radio[2].library: {gateway.folder}/gone.so cannot be read"


def _no_channel_plan(gateway: Installation) -> str:
    plan = f"{gateway.folder}/gone.json"
    gateway.write(f'{gateway.text}[[radio]]\ntype = "sx1302"\nconfiguration = "{plan}"\n')
    return f"{plan}: No such file or directory"


def _no_token(gateway: Installation) -> str:
    token = gateway.folder / "gone"
    gateway.write(f'{gateway.text}[[radio]]\ntype = "basics_station"\nregion = "EU868"\ntoken_file = "{token}"\n')
    return f"{token}: cannot be read"


def _no_zeromq(gateway: Installation) -> str:
    gateway.write(f'{gateway.text}[[radio]]\ntype = "concentratord"\n')
    # The fixture takes it back; `None` is how Python says that a module cannot be had.
    sys.modules["zmq"] = None  # type: ignore[assignment]
    return (
        f"{gateway.path}: radio[2]: type concentratord needs the Python package pyzmq "
        "(install the extra: systemd/install.sh --with concentratord, or pip install 'lorabridge[concentratord]')"
    )


def _wrong_form(gateway: Installation) -> str:
    gateway.write(gateway.text.replace("thing_name", "thingname"))
    return f"{gateway.path}: aws_iot.thingname: unknown key (did you mean thing_name?)"


def _unreadable(gateway: Installation) -> str:
    gateway.path.unlink()
    return f"{gateway.path}: No such file or directory"


def _store_in_a_file(gateway: Installation) -> str:
    gateway.write(gateway.text.replace(f"{gateway.folder}/state/", "/proc/version/"))
    return f"{gateway.path}: store.path: /proc/version is no folder"


@pytest.mark.parametrize(
    "spoil",
    [
        _missing_certificate,
        _open_private_key,
        _key_of_another,
        _expired,
        _no_roots,
        _open_device_file,
        _open_device_folder,
        _same_device_twice,
        _no_devices_at_all,
        _device_of_1_1_without_region,
        _form_that_numbers_data_rates_without_region,
        _topic_of_another_application,
        _no_recording,
        _no_concentrator_library,
        _no_channel_plan,
        _no_token,
        _no_zeromq,
        _wrong_form,
        _unreadable,
        _store_in_a_file,
    ],
    ids=lambda spoil: spoil.__name__.strip("_"),
)
def test_a_mistake_is_named_with_its_place_and_fails_the_check(
    gateway: Installation, spoil: Callable[[Installation], str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = spoil(gateway)
    status, told = _checked(gateway, capsys)
    assert said in told
    assert status == 78
    assert told.splitlines()[-1].endswith("to mend before the bridge can run")


def test_all_mistakes_are_told_at_once(gateway: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [spoil(gateway) for spoil in (_open_private_key, _no_roots, _open_device_file, _no_recording)]
    status, told = _checked(gateway, capsys)
    assert status == 78
    assert [said for said in expected if said not in told] == []
    assert told.splitlines()[-1] == "4 to mend before the bridge can run"


def test_what_the_service_makes_or_has_is_a_warning(gateway: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    text = gateway.text.replace(f"{gateway.folder}/state/", f"{gateway.folder}/missing/")
    gateway.write(text.replace(str(gateway.socket), f"{gateway.folder}/run/s.sock"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", gateway.udp_port))
        status, told = _checked(gateway, capsys)
    assert status == 0
    assert f"store.path: warning: {gateway.folder}/missing is missing" in told
    assert f"report.status_socket: warning: {gateway.folder}/run is missing" in told
    assert f"radio[1]: warning: cannot listen on 127.0.0.1 port {gateway.udp_port}" in told
    assert told.splitlines()[-1] == "in order, 4 warning(s)"
    assert not (gateway.folder / "missing").exists()


def test_a_concentratord_that_does_not_run_yet_is_a_warning(
    gateway: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    there, gone = gateway.folder / "there", gateway.folder / "gone"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(there))
        urls = f'event_url = "ipc://{there}"\ncommand_url = "ipc://{gone}"\n'
        gateway.write(f'{gateway.text}[[radio]]\ntype = "concentratord"\n{urls}')
        status, told = _checked(gateway, capsys)
    assert status == 0
    assert f"radio[2].command_url: warning: {gone}: No such file or directory" in told
    assert "radio[2].event_url" not in told


def test_a_token_that_stations_would_never_show_is_a_warning(
    gateway: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    token = gateway.folder / "token"
    token.write_text("Bearer of good news", encoding="ascii")
    station = f'[[radio]]\ntype = "basics_station"\nregion = "EU868"\nport = 0\ntoken_file = "{token}"\n'
    gateway.write(f"{gateway.text}{station}")
    status, told = _checked(gateway, capsys)
    assert (status, "radio[2].token_file: warning: stations show their token within TLS only" in told) == (0, True)


def test_a_folder_that_we_may_not_write_is_told(
    gateway: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = gateway.folder / "state"
    state.chmod(0o500)
    if os.geteuid() == 0:  # the kernel lets root write anywhere: answer as it does to the service's user
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK or Path(path) != state)
    status, told = _checked(gateway, capsys)
    state.chmod(0o700)
    assert status == 78
    assert f"{gateway.path}: store.path: cannot write in {state}" in told


def test_a_recording_that_is_there_and_an_address_of_ipv6_are_in_order(
    gateway: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = gateway.folder / "roof.jsonl"
    recording.write_bytes(heard(uplink(METER, 1)).phy_payload)
    radios = f'[[radio]]\ntype = "recording"\npath = "{recording}"\n[[radio]]\ntype = "semtech_udp"\nname = "six"\n'
    gateway.write(f'{gateway.text}{radios}bind = "::1"\nport = 0\n')
    status, told = _checked(gateway, capsys)
    assert (status, told.splitlines()[-1]) == (0, "in order, 1 warning(s)")


def test_credentials_are_looked_up_where_the_service_manager_says(
    gateway: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = gateway.devices / "all.toml"
    secret = os.urandom(16).hex()
    key = METER.session_keys.app_s_key if METER.session_keys else None
    assert key is not None
    file.write_text(
        file.read_text(encoding="utf-8").replace(f'"{key.reveal().hex()}"', '{ credential = "meter" }'),
        encoding="utf-8",
    )
    assert _checked(gateway, capsys)[0] == 78
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(gateway.folder))
    credential = gateway.folder / "meter"
    credential.touch(mode=0o400)
    credential.chmod(0o600)
    credential.write_text(secret, encoding="utf-8")
    status, told = _checked(gateway, capsys)
    assert status == 0
    assert secret not in told


def test_the_form_alone_can_be_checked_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, status, last in (
        (SMALLEST, 0, "in order"),
        (SMALLEST.replace("thing_name", "thing"), 78, "2 to mend before the bridge can run"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main(["check", "--form-only", "--config", "-"]) == status
        assert capsys.readouterr().out.splitlines()[-1] == last


def _broker(gateway: Installation, more: str) -> None:
    """`[mqtt]` in the place of `[aws_iot]`."""
    before, _, after = gateway.text.partition("[aws_iot]")
    rest = after[after.index("\n[") :]
    gateway.write(f'{before}[mqtt]\nhost = "127.0.0.1"\nclient_id = "{GATEWAY}"\n{more}{rest}')


def test_a_broker_with_a_password_is_checked_and_a_plain_one_on_this_machine_has_no_files(
    gateway: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    _broker(gateway, "plain = true")
    assert _checked(gateway, capsys) == (0, "in order\n")
    password = gateway.folder / "password"
    _broker(gateway, f'ca_file = "{gateway.pki.ca_file}"\nuser_name = "roof"\npassword_file = "{password}"')
    status, told = _checked(gateway, capsys)
    assert (status, told.startswith(f"{password}: cannot be read: No such file")) == (78, True)
    password.touch(mode=0o644)
    assert f"{password}: can be read by others (chmod 600 {password})" in _checked(gateway, capsys)[1]

"""`lorabridge devices`: what is known of devices, never their keys; and exports turned into device files."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.cli.main import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, main
from lorabridge.errors import ConfigError
from lorabridge.lorawan.activation import JoinHistory
from lorabridge.lorawan.device import Activation, Device
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DeviceClass, MacVersion
from lorabridge.store.database import Batch, Store
from lorabridge.store.device_import import import_devices, to_toml
from lorabridge.store.devices import load_devices
from tests.store.join_help import DEV_EUI, JOIN_ID, join
from tests.store.store_help import old_database, settings, with_store

K1 = "8f3a5c7e9d1b2046a8c0e2f41357bd9e"
K2 = "d41d8cd98f00b204e9800998ecf8427e"
K3 = "900150983cd24fb0d6963f7d28e17f72"
K4 = "f96b697d7cb7938d525a2f31aaf161d0"
SECRETS = (K1, K2, K3, K4)

DEVICES = f"""
[[device]]
name = "cellar meter"
dev_eui = "0004a30b001c0530"
mac_version = "1.0.3"
dev_addr = "26011bda"
nwk_s_key = "{K1}"
app_s_key = "{K2}"
counter_policy = "confirm"
channels = [867.1]
tags = {{ site = "north" }}

[[device]]
name = "roof"
dev_eui = "0004a30b001c0531"
mac_version = "1.1.0"
activation = "otaa"
join_eui = "70b3d57ed0000001"
app_key = "{K3}"
nwk_key = "{K4}"
"""


@pytest.fixture
def device_file(tmp_path: Path) -> Path:
    path = tmp_path / "devices.toml"
    path.write_text(DEVICES, encoding="utf-8")
    path.chmod(0o600)
    return path


def test_list_prints_a_line_a_device_and_no_key(device_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "list", "--path", str(device_file)]) == EXIT_OK
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["cellar", "meter", "0004a30b001c0530", "1.0.3", "abp", "A", "26011bda", "confirm", "decrypted"],
        ["roof", "0004a30b001c0531", "1.1.0", "otaa", "A", "-", "-", "decrypted"],
    ]
    assert not any(secret[:8] in out for secret in SECRETS)


@pytest.mark.parametrize("which", ["cellar meter", "0004A30B001C0530", "00-04-a3-0b-00-1c-05-30"])
def test_show_tells_everything_but_the_keys(device_file: Path, capsys: pytest.CaptureFixture[str], which: str) -> None:
    assert main(["devices", "show", which, "--path", str(device_file)]) == EXIT_OK
    out = capsys.readouterr().out
    facts = {line[:18].strip(): line[18:] for line in out.splitlines()}
    assert facts["read from"] == f"{device_file}: device[1]"
    assert facts["nwk_s_key"].startswith("present, fingerprint ")
    assert facts["channels"] == "867.1 MHz"
    assert facts["tag site"] == "north"
    assert not any(secret[:8] in out for secret in SECRETS)


def test_show_of_an_unknown_device_fails(device_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "attic", "--path", str(device_file)]) == EXIT_FAILED
    assert "'attic'" in capsys.readouterr().err


def test_check_prints_every_problem(device_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "check", "--path", str(device_file)]) == EXIT_OK
    assert "2 device(s) in order, 0 error(s), 0 warning(s)" in capsys.readouterr().out
    device_file.write_text(DEVICES.replace(K1, K1[:-1]).replace("otaa", "otta"), encoding="utf-8")
    assert main(["devices", "check", "--path", str(device_file)]) == EXIT_CONFIG
    out = capsys.readouterr().out
    assert "device[1].nwk_s_key" in out
    assert "device[2].activation" in out
    assert "0 device(s) in order, 2 error(s)" in out


GROUP = """
[[multicast_group]]
name = "street-lamps"
mc_addr = "26011fff"
mc_nwk_s_key = "900150983cd24fb0d6963f7d28e17f73"
frequency = 869.525
data_rate = 3
gateways = ["00000000000000aa"]
"""


def test_groups_are_listed_shown_and_counted_beside_devices(
    device_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device_file.write_text(DEVICES + GROUP, encoding="utf-8")
    path = str(device_file)
    assert main(["devices", "list", "--path", path]) == EXIT_OK
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "street-lamps",
        "26011fff",
        "869.525",
        "3",
        "00000000000000aa",
    ]
    assert main(["devices", "check", "--path", path]) == EXIT_OK
    assert "2 device(s) and 1 multicast group(s) in order" in capsys.readouterr().out
    assert main(["devices", "show", "street-lamps", "--path", path]) == EXIT_OK
    out = capsys.readouterr().out
    assert "869.525 MHz" in out
    assert "mc_nwk_s_key" in out
    assert "900150" not in out


def test_show_tells_class_and_adr_and_with_a_database_how_many_nonces_are_used(
    tmp_path: Path, device_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device_file.write_text(DEVICES + 'class = "C"\nadr = false\n', encoding="utf-8")
    wanted = settings(tmp_path)
    with_store(wanted, lambda store: store.commit(join(7)))
    for which, says in (("cellar meter", "1 of 65536 DevNonces used, last DevNonce 7 of 65535"), ("roof", "has never")):
        assert main(["devices", "show", which, "--path", str(device_file), "--store", wanted.path]) == EXIT_OK
        facts = {line[:18].strip(): line[18:] for line in capsys.readouterr().out.splitlines()}
        assert facts["joins"].startswith(says)
        assert (facts["class"], facts["adr"]) == (("A", "on") if which == "cellar meter" else ("C", "off"))


@pytest.mark.parametrize("which", ["cellar meter", "0004A30B001C0530"])
def test_forget_nonces_asks_first_and_then_releases_the_device_beside_a_running_bridge(
    tmp_path: Path, device_file: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    wanted = settings(tmp_path)
    words = ["devices", "forget-nonces", which, "--path", str(device_file), "--store", wanted.path]

    async def use(store: Store) -> None:
        history = JoinHistory(join_id=JOIN_ID, dev_eui=DEV_EUI, join_nonce=9, last_dev_nonce=300, rj_count1=4)
        nonces = tuple((JOIN_ID, nonce) for nonce in range(1000))
        stranger = JoinHistory(join_id=b"another1", dev_eui=EUI64(1), last_dev_nonce=5)
        await store.commit(Batch(joins=(history, stranger), nonces=(*nonces, (b"another1", 5))))
        assert main(words) == EXIT_FAILED
        out = capsys.readouterr().out
        assert "1000 of 65536 DevNonces used, last DevNonce 300 of 65535, last RJcount1 4 of 65535" in out
        assert "played back once more" in out.replace("\n", " ")
        assert store.join_history(JOIN_ID) == history, "nothing happened yet"
        assert main([*words, "--yes"]) == EXIT_OK
        assert "1000 of 65536" in capsys.readouterr().out
        released = msgspec.structs.replace(history, last_dev_nonce=None, rj_count1=None)
        assert store.join_history(JOIN_ID) == released, "JoinNonce goes on"
        assert not any(store.nonce_used(JOIN_ID, nonce) for nonce in range(1000))
        assert store.join_history(b"another1") == stranger
        assert store.nonce_used(b"another1", 5)
        await store.commit(Batch(nonces=((JOIN_ID, 1),)))
        assert main(words) == EXIT_FAILED
        assert "1 of 65536" in capsys.readouterr().out

    with_store(wanted, use)


def test_forget_nonces_of_an_unknown_device_or_without_a_database_fails(
    tmp_path: Path, device_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--path", str(device_file), "--yes", "--store"]
    assert main(["devices", "forget-nonces", "attic", *common, str(tmp_path / "a.db")]) == EXIT_FAILED
    assert "'attic'" in capsys.readouterr().err
    assert main(["devices", "forget-nonces", "roof", *common, str(tmp_path / "a.db")]) == EXIT_CONFIG
    assert "no database here" in capsys.readouterr().err
    assert not (tmp_path / "a.db").exists()
    old = str(old_database(tmp_path))
    assert main(["devices", "forget-nonces", "roof", *common, old]) == EXIT_FAILED
    assert "roof: has never joined here" in capsys.readouterr().out
    device_file.write_text("= broken", encoding="utf-8")
    assert main(["devices", "forget-nonces", "roof", *common, old]) == EXIT_FAILED
    assert "is no TOML" in capsys.readouterr().err


def test_forget_nonces_waits_for_no_writer_longer_than_it_has_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = settings(tmp_path)

    async def use(store: Store) -> int:
        await store.commit(join(1))
        store._writer._connection.execute("BEGIN IMMEDIATE")
        try:
            return main(["devices", "forget-nonces", str(DEV_EUI), "--yes", "--store", wanted.path])
        finally:
            store._writer._connection.execute("ROLLBACK")

    assert with_store(wanted, use) == EXIT_FAILED
    assert "locked" in capsys.readouterr().err
    Path(wanted.path).write_bytes(b"nothing that SQLite knows" * 100)
    assert main(["devices", "forget-nonces", str(DEV_EUI), "--yes", "--store", wanted.path]) == EXIT_CONFIG


def test_a_device_whose_history_is_empty_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = settings(tmp_path)
    empty = Batch(joins=(JoinHistory(join_id=JOIN_ID, dev_eui=DEV_EUI),))
    with_store(wanted, lambda store: store.commit(empty))
    assert main(["devices", "forget-nonces", str(DEV_EUI), "--store", wanted.path]) == EXIT_FAILED
    assert "no nonce is used" in capsys.readouterr().out


TTS_OTAA: dict[str, Any] = {
    "ids": {
        "device_id": "hall",
        "application_ids": {"application_id": "app"},
        "dev_eui": "0004A30B001C0530",
        "join_eui": "70B3D57ED0000001",
        "dev_addr": "260B1234",
    },
    "created_at": "2026-01-01T00:00:00Z",
    "name": "Hall 🌡",
    "attributes": {"floor": "3", "note": 'say "hi"\n\x7f \ud800'},
    "lorawan_version": "MAC_V1_0_2",
    "lorawan_phy_version": "PHY_V1_0_2_REV_B",
    "frequency_plan_id": "EU_863_870_TTN",
    "supports_join": True,
    "root_keys": {"app_key": {"key": K3.upper()}},
}
TTS_SESSION = {
    "dev_addr": "260B1234",
    "keys": {
        "session_key_id": "AZ",
        "f_nwk_s_int_key": {"key": K1.upper()},
        "s_nwk_s_int_key": {"key": K1.upper()},
        "nwk_s_enc_key": {"key": K1.upper()},
        "app_s_key": {"key": K2.upper()},
    },
    "last_f_cnt_up": 4711,
    "started_at": "2026-01-01T00:00:00Z",
}


def imported(folder: Path, export: object, *more: str, status: int = EXIT_OK) -> tuple[Device, ...]:
    """Import through the command line and load what it wrote."""
    source, out = folder / "export", folder / "out.toml"
    source.write_text(export if isinstance(export, str) else json.dumps(export), encoding="utf-8")
    assert main(["devices", "import", str(source), "--out", str(out), *more]) == status
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    devices, problems = load_devices(out, credentials_dir=None)
    assert all(problem.warning for problem in problems), problems
    return devices


def test_a_the_things_stack_device_without_session_is_taken_to_join(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (device,) = imported(tmp_path, TTS_OTAA)
    assert (device.name, device.dev_eui, device.join_eui) == (
        "Hall 🌡",
        EUI64(0x0004A30B001C0530),
        EUI64(0x70B3D57ED0000001),
    )
    assert (device.activation, device.mac_version, device.region) == (Activation.OTAA, MacVersion.V1_0_2, "EU868")
    assert device.app_key == AES128Key.parse(K3)
    assert dict(device.tags) == {"floor": "3", "note": 'say "hi"\n\x7f ?'}
    out = capsys.readouterr().out
    assert "no session keys" in out
    assert "frame counters are not imported" in out
    assert not any(secret in out.lower() for secret in SECRETS)


def test_a_the_things_stack_device_with_session_is_taken_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (device,) = imported(tmp_path, {**TTS_OTAA, "session": TTS_SESSION})
    assert (device.activation, device.dev_addr) == (Activation.ABP, DevAddr(0x260B1234))
    assert device.session_keys is not None
    assert device.session_keys.app_s_key is not None
    assert device.session_keys.f_nwk_s_int_key.reveal().hex() == K1
    assert device.session_keys.app_s_key.reveal().hex() == K2
    assert "good until it joins again" in capsys.readouterr().out


def test_a_stream_a_list_and_lines_of_objects_are_the_same(tmp_path: Path) -> None:
    second = {**TTS_OTAA, "ids": {**TTS_OTAA["ids"], "dev_eui": "0004A30B001C0531"}}
    second["root_keys"] = {"app_key": {"key": K4}}
    for number, text in enumerate(
        (
            json.dumps([TTS_OTAA, second]),
            json.dumps(TTS_OTAA) + "\n" + json.dumps(second) + "\n",
            "\ufeff" + json.dumps(TTS_OTAA, indent=2) + json.dumps(second, indent=2),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        devices = imported(folder, text)
        assert [device.name for device in devices] == ["Hall 🌡", "Hall 🌡 0004a30b001c0531"]


def test_a_1_1_session_keeps_its_four_keys(tmp_path: Path) -> None:
    keys = {
        "f_nwk_s_int_key": {"key": K1},
        "s_nwk_s_int_key": {"key": K2},
        "nwk_s_enc_key": {"key": K3},
        "app_s_key": {"key": K4},
    }
    export = {
        "ids": TTS_OTAA["ids"],
        "lorawan_version": "1.1.0",
        "session": {**TTS_SESSION, "keys": keys},
    }
    (device,) = imported(tmp_path, export)
    assert device.session_keys is not None
    assert device.session_keys.nwk_s_enc_key.reveal().hex() == K3


def test_a_1_1_device_without_app_key_is_taken_sealed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = {
        **TTS_OTAA,
        "lorawan_version": "MAC_V1_1",
        "root_keys": {"nwk_key": {"key": K4}},
        "supports_class_c": True,
    }
    (device,) = imported(tmp_path, export)
    assert (device.activation, device.app_key, device.device_class) == (Activation.OTAA, None, DeviceClass.C)
    assert device.nwk_key == AES128Key.parse(K4)
    assert "no AppKey: its payloads stay encrypted" in capsys.readouterr().out


def test_wrapped_keys_are_told_apart_from_absent_ones(tmp_path: Path) -> None:
    wrapped = {**TTS_OTAA, "root_keys": {"app_key": {"kek_label": "js", "encrypted_key": "AAAA"}}}
    devices, (problem,) = import_devices(json.dumps(wrapped).encode(), "x.json")
    assert devices == []
    assert "wrapped" in problem.what
    assert "0004a30b001c0530" in problem.where


CHIRPSTACK = [
    {
        "device": {
            "devEui": "0004a30b001c0530",
            "name": "Hall",
            "description": "",
            "deviceProfileId": "p1",
            "skipFcntCheck": False,
            "tags": {"floor": "3"},
            "joinEui": "70b3d57ed0000001",
        },
        "createdAt": "2026-01-01T00:00:00Z",
    },
    {"deviceKeys": {"devEui": "0004a30b001c0530", "nwkKey": K3, "appKey": "0" * 32, "genAppKey": ""}},
    {
        "deviceProfile": {
            "id": "p1",
            "name": "meters",
            "region": "EU868",
            "macVersion": "LORAWAN_1_0_4",
            "supportsOtaa": True,
        }
    },
]
ACTIVATION = {
    "deviceActivation": {
        "devEui": "0004a30b001c0530",
        "devAddr": "00112233",
        "appSKey": K2,
        "nwkSEncKey": K1,
        "sNwkSIntKey": K1,
        "fNwkSIntKey": K1,
        "fCntUp": 12,
    },
    "joinServerContext": None,
}


def test_chirpstack_answers_are_put_together_by_dev_eui(tmp_path: Path) -> None:
    (device,) = imported(tmp_path, CHIRPSTACK)
    assert (device.name, device.activation, device.region) == ("Hall", Activation.OTAA, "EU868")
    assert device.mac_version is MacVersion.V1_0_4
    assert device.app_key == AES128Key.parse(K3), "for 1.0 ChirpStack keeps the AppKey in nwkKey"
    assert device.tags == (("floor", "3"),)


def test_a_chirpstack_activation_gives_the_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (device,) = imported(tmp_path, [ACTIVATION, *CHIRPSTACK])
    assert (device.activation, device.dev_addr) == (Activation.ABP, DevAddr(0x00112233))
    assert device.session_keys is not None
    assert device.session_keys.f_nwk_s_int_key.reveal().hex() == K1
    assert "good until it joins again" in capsys.readouterr().out


def test_one_object_with_all_answers_and_snake_case_is_taken_too(tmp_path: Path) -> None:
    bundle = {
        "device": {"dev_eui": "0004a30b001c0530", "name": "Hall"},
        "device_activation": {
            "dev_eui": "0004A30B001C0530",
            "dev_addr": "00112233",
            "app_s_key": "",
            "nwk_s_enc_key": K3,
            "s_nwk_s_int_key": K2,
            "f_nwk_s_int_key": K1,
        },
    }
    (device,) = imported(tmp_path, {"result": [bundle["device"]], **bundle})
    assert device.mac_version is MacVersion.V1_1_0, "three network keys that differ are of 1.1"
    assert device.session_keys is not None
    assert device.session_keys.app_s_key is None


TTS_CSV = (
    "id;dev_eui;join_eui;name;frequency_plan_id;lorawan_version;app_key;dev_addr;app_s_key;f_nwk_s_int_key;brand_id\n"
    f"one;1122334455667788;70B3D57ED0000001;First;EU_863_870_TTN;MAC_V1_0_4;{K4};01020304;{K2};{K1};acme\n"
    "\n"
    f"two;1122334455667789;70B3D57ED0000001;;EU_863_870_TTN;MAC_V1_0_4;{K3}\n"
)


def test_the_csv_of_the_things_stack_is_taken(tmp_path: Path) -> None:
    first, second = imported(tmp_path, TTS_CSV)
    assert (first.name, first.activation, first.dev_addr) == ("First", Activation.ABP, DevAddr(0x01020304))
    assert (second.name, second.activation, second.app_key) == ("two", Activation.OTAA, AES128Key.parse(K3))


def test_a_table_with_other_headings_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"DevEUI,Device name,App EUI,AppKey\r\n11-22-33-44-55-66-77-88,Meter,70B3D57ED0000001,{K1}\r\n"
    (device,) = imported(tmp_path, text, "--mac-version", "1.0.2")
    assert (device.name, device.mac_version, device.app_key) == ("Meter", MacVersion.V1_0_2, AES128Key.parse(K1))
    imported(tmp_path, text, "--force")
    assert "1.0.3 was assumed" in capsys.readouterr().out


def test_devices_that_cannot_be_taken_are_named_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"dev_eui,app_key\n1122334455667788,{K1}\n1122334455667789,{K2}0\n,{K3}\n112233445566778a,\n"
    (device,) = imported(tmp_path, text, status=EXIT_FAILED)
    assert device.app_key == AES128Key.parse(K1)
    out = capsys.readouterr().out
    assert "device 2.app_key: an AES-128 key is 32 hex digits, this has 33" in out
    assert "device 3.dev_eui: is missing" in out
    assert "device 4 (112233445566778a): has neither" in out
    assert "1 device(s) written" in out
    assert not any(secret in out for secret in SECRETS)


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "export", tmp_path / "out.toml"
    source.write_text(TTS_CSV, encoding="utf-8")
    out.write_text("precious", encoding="utf-8")
    command = ["devices", "import", str(source), "--out", str(out)]
    assert main(command) == EXIT_CONFIG
    assert "--force" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "precious"
    assert main([*command, "--force"]) == EXIT_OK
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["export", "out.toml"]
    assert main(["devices", "import", str(source), "--out", str(tmp_path / "no" / "x.toml")]) == EXIT_CONFIG
    assert main(["devices", "import", str(tmp_path / "absent"), "--out", str(out)]) == EXIT_CONFIG


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no column dev_eui"),
        (b"a,b\n1,2\n", "no column dev_eui"),
        (b"dev_eui\n", "holds no device"),
        (b'dev_eui\n"open', "no CSV"),
        (b"\xff\xfe", "no UTF-8"),
        (b"{", "no JSON in line 1"),
        (b'{}\n{"a": 1}\nx', "no JSON in line 3"),
        (b"[1]", "something else than objects"),
        (b"[" * 100_000, "no JSON"),
        (b"{}", "holds no device"),
    ],
)
def test_what_is_no_export_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        import_devices(data, "export")


@pytest.fixture(scope="session")
def fuzz_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


scalars = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([K1, K2, "0004a30b001c0530"])
)
OBJECTS = "ids session root_keys keys device deviceKeys result tags attributes app_key f_nwk_s_int_key"
SCALARS = "dev_eui devEui device_id name key lorawan_version dev_addr app_s_key nwkKey encrypted_key id macVersion"
names = st.sampled_from(f"{OBJECTS} {SCALARS}".split())
objects = st.recursive(
    st.dictionaries(names, scalars, max_size=6),
    lambda inner: st.dictionaries(names, scalars | inner | st.lists(inner, max_size=2), max_size=6),
    max_leaves=8,
)


@given(export=st.lists(objects, max_size=3), kind=st.sampled_from(["auto", "tts", "chirpstack"]))
def test_any_export_gives_a_device_file_in_order_or_a_problem(
    fuzz_folder: Path, export: list[dict[str, Any]], kind: str
) -> None:
    try:
        devices, _ = import_devices(json.dumps(export).encode(), "fuzz", kind)
    except ConfigError:
        return
    out = fuzz_folder / "out.toml"
    out.write_text(to_toml(devices), encoding="utf-8")
    out.chmod(0o600)
    loaded, problems = load_devices(out, credentials_dir=None)
    taken = {problem.where for problem in problems if "is taken" in problem.what or "told apart" in problem.what}
    assert len(loaded) == len(devices)
    assert all(problem.warning or problem.where in taken for problem in problems), problems


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: ("dev_eui,app_key\n" + text).encode()))
def test_any_bytes_give_devices_or_problems(data: bytes) -> None:
    try:
        devices, problems = import_devices(data, "fuzz")
    except ConfigError as error:
        assert error.problems  # noqa: PT017  # most inputs end here; the others must give something
        return
    assert devices or problems

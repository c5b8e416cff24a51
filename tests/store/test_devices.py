"""Device files: read when they are in order and private; otherwise everything that is wrong, and never a key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.errors import Problem
from lorabridge.lorawan.device import Activation, CounterPolicy, Device, MulticastGroup
from lorabridge.lorawan.multicast import derive_multicast_keys
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DeviceClass, MacVersion
from lorabridge.store.devices import load_devices, load_devices_and_groups
from lorabridge.store.key_checks import fingerprint, weakness

K1 = "8f3a5c7e9d1b2046a8c0e2f41357bd9e"
K2 = "d41d8cd98f00b204e9800998ecf8427e"
K3 = "900150983cd24fb0d6963f7d28e17f72"
K4 = "f96b697d7cb7938d525a2f31aaf161d0"

ABP = f"""
[[device]]
name = "meter"
dev_eui = "0004A30B001C0530"
mac_version = "1.0.3"
activation = "abp"
dev_addr = "26011bda"
nwk_s_key = "{K1}"
app_s_key = "{K2}"
"""


def write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def load(
    folder: Path, text: str | bytes, credentials_dir: Path | None = None
) -> tuple[tuple[Device, ...], list[Problem]]:
    return load_devices(write(folder / "meters.toml", text), credentials_dir=credentials_dir)


def only_problem(folder: Path, text: str, credentials_dir: Path | None = None) -> Problem:
    devices, problems = load(folder, text, credentials_dir)
    assert len(problems) == 1, problems
    assert problems[0].hint, "an operator is told what to do"
    assert problems[0].warning or len(devices) < max(text.count("[[device]]"), 1)
    return problems[0]


def another(number: int, **changes: str) -> str:
    """A device of 1.0 that is like no other, with `changes`."""
    fields = {
        "name": f'"d{number}"',
        "dev_eui": f'"{number:016x}"',
        "mac_version": '"1.0.3"',
        "dev_addr": f'"{number:08x}"',
        "nwk_s_key": f'"{number:08x}{K1[8:]}"',
        "app_s_key": f'"{number:08x}{K2[8:]}"',
        **changes,
    }
    return "[[device]]\n" + "".join(f"{name} = {value}\n" for name, value in fields.items() if value)


def test_a_device_is_what_its_file_says(tmp_path: Path) -> None:
    text = ABP + (
        'counter_policy = "confirm"\nconfirm_frames = 5\nmax_fcnt_gap = 0\nregion = "EU868"\n'
        'channels = [867.1, 867.3, 868]\ntags = { site = "north", floor = "3" }\n'
    )
    (device,), problems = load(tmp_path, text)
    assert problems == []
    assert device.session_keys is not None
    assert {key.reveal().hex() for key in (device.session_keys.f_nwk_s_int_key, device.session_keys.nwk_s_enc_key)} == {
        K1
    }
    assert device.session_keys.app_s_key == AES128Key.parse(K2)
    assert (device.name, device.dev_eui, device.dev_addr) == ("meter", EUI64(0x0004A30B001C0530), DevAddr(0x26011BDA))
    assert (device.mac_version, device.activation) == (MacVersion.V1_0_3, Activation.ABP)
    assert (device.counter_policy, device.confirm_frames, device.max_fcnt_gap) == (CounterPolicy.CONFIRM, 5, 0)
    assert (device.region, device.channels_hz) == ("EU868", (867_100_000, 867_300_000, 868_000_000))
    assert device.tags == (("site", "north"), ("floor", "3"))


def test_a_device_of_1_1_has_four_keys_of_its_own(tmp_path: Path) -> None:
    text = (
        f'[[device]]\nname = "m"\ndev_eui = "01"\nmac_version = "1.1.0"\ndev_addr = "26011bda"\n'
        f'f_nwk_s_int_key = "{K1}"\ns_nwk_s_int_key = "{K2}"\nnwk_s_enc_key = "{K3}"\napp_s_key = "{K4}"\n'
    ).replace('"01"', '"00-04-a3-0b-00-1c-05-30"')
    (device,), problems = load(tmp_path, text)
    assert problems == []
    keys = device.session_keys
    assert keys is not None
    assert keys.app_s_key is not None
    found = (keys.f_nwk_s_int_key, keys.s_nwk_s_int_key, keys.nwk_s_enc_key, keys.app_s_key)
    assert [key.reveal().hex() for key in found] == [K1, K2, K3, K4]


def test_a_device_without_app_s_key_is_taken_sealed(tmp_path: Path) -> None:
    (device,), problems = load(tmp_path, another(1, app_s_key=""))
    assert problems == []
    assert device.session_keys is not None
    assert device.session_keys.app_s_key is None


@pytest.mark.parametrize(("version", "more"), [("1.0.4", ""), ("1.1.0", f'nwk_key = "{K2}"\n')])
def test_a_device_that_joins_is_taken_with_its_root_keys(tmp_path: Path, version: str, more: str) -> None:
    text = (
        f'[[device]]\nname = "m"\ndev_eui = "0004a30b001c0530"\nmac_version = "{version}"\nactivation = "otaa"\n'
        f'join_eui = "70b3d57ed0000001"\napp_key = "{K1}"\n{more}'
    )
    (device,), problems = load(tmp_path, text)
    assert problems == []
    assert (device.session_keys, device.dev_addr) == (None, None)
    assert device.join_eui == EUI64(0x70B3D57ED0000001)
    assert device.app_key == AES128Key.parse(K1)
    assert (device.nwk_key is not None) == bool(more)


def test_a_device_of_1_1_that_joins_without_app_key_is_taken_sealed(tmp_path: Path) -> None:
    text = (
        '[[device]]\nname = "m"\ndev_eui = "0004a30b001c0530"\nmac_version = "1.1.0"\nactivation = "otaa"\n'
        f'join_eui = "70b3d57ed0000001"\nnwk_key = "{K2}"\n'
    )
    (device,), problems = load(tmp_path, text)
    assert problems == []
    assert (device.app_key, device.nwk_key) == (None, AES128Key.parse(K2))


@pytest.mark.parametrize("policy", ["confirm", "off"])
def test_a_device_that_joins_never_restarts_a_counter(tmp_path: Path, policy: str) -> None:
    table = {"activation": '"otaa"', "join_eui": '"70b3d57ed0000001"', "app_key": f'"{K1}"'}
    table |= {"dev_addr": "", "nwk_s_key": "", "app_s_key": ""}
    assert load(tmp_path, another(1, **table, counter_policy='"strict"'))[1] == []
    problem = only_problem(tmp_path, another(1, **table, counter_policy=f'"{policy}"'))
    assert problem.where == f"{tmp_path}/meters.toml: device[1].counter_policy"
    assert not problem.warning


def test_class_and_adr_are_taken_and_have_defaults(tmp_path: Path) -> None:
    text = another(1) + another(2, **{"class": '"C"', "adr": "false"})
    (plain, other), problems = load(tmp_path, text)
    assert problems == []
    assert (plain.device_class, plain.adr) == (DeviceClass.A, True)
    assert (other.device_class, other.adr) == (DeviceClass.C, False)


def group(number: int, **changes: str) -> str:
    """A multicast group of its own; `changes` are values as TOML writes them, an empty one is left out."""
    table = {
        "name": f'"g{number}"',
        "mc_addr": f'"2601ff{number:02x}"',
        "mc_nwk_s_key": f'"{number:02x}b4d1e97a5c3f08e6d24b8a1c9f7035"',
        "mc_app_s_key": f'"{number:02x}7e20c5a94f3b81d6e28c0b5f9a1d43"',
    } | changes
    return "[[multicast_group]]\n" + "".join(f"{key} = {value}\n" for key, value in table.items() if value)


def load_groups(folder: Path, text: str) -> tuple[tuple[MulticastGroup, ...], list[Problem]]:
    path = write(folder / "meters.toml", text)
    devices, groups, problems = load_devices_and_groups(path, credentials_dir=None)
    assert load_devices(path, credentials_dir=None) == (devices, problems)
    return groups, problems


def test_every_field_of_a_multicast_group_is_read(tmp_path: Path) -> None:
    write(tmp_path / "app.key", K2)
    text = group(
        1,
        name='"street-lamps.1"',
        mc_nwk_s_key=f'"{K1}"',
        mc_app_s_key='{ file = "app.key" }',
        frequency="869.525",
        data_rate="3",
        gateways='["00000000000000aa", "b8-27-eb-ff-fe-00-00-01"]',
        region='"EU868"',
    )
    found, problems = load_groups(tmp_path, another(1) + text)
    assert problems == []
    assert found == (
        MulticastGroup(
            name="street-lamps.1",
            mc_addr=DevAddr(0x2601FF01),
            mc_nwk_s_key=AES128Key.parse(K1),
            mc_app_s_key=AES128Key.parse(K2),
            frequency_hz=869_525_000,
            data_rate=3,
            gateways=(EUI64(0xAA), EUI64(0xB827EBFFFE000001)),
            region="EU868",
        ),
    )


def test_a_group_needs_name_address_and_network_key_only(tmp_path: Path) -> None:
    (found,), problems = load_groups(tmp_path, group(1, mc_app_s_key=""))
    assert problems == []
    assert (found.mc_app_s_key, found.frequency_hz, found.data_rate, found.gateways, found.region) == (
        None,
        None,
        None,
        (),
        None,
    )


def test_a_group_may_be_given_by_the_key_that_its_session_keys_follow_from(tmp_path: Path) -> None:
    (found,), problems = load_groups(tmp_path, group(1, mc_key=f'"{K1}"', mc_nwk_s_key="", mc_app_s_key=""))
    assert problems == []
    derived = derive_multicast_keys(AES128Key.parse(K1), found.mc_addr)
    assert (found.mc_nwk_s_key, found.mc_app_s_key) == (derived.mc_nwk_s_key, derived.mc_app_s_key)


GROUP_CASES = {
    "name of a DevEUI": ({"name": '"0004A30B001C0530"'}, "name", "matching"),
    "name with a slash": ({"name": '"a/b"'}, "name", "matching"),
    "long name": ({"name": f'"{"x" * 65}"'}, "name", "matching"),
    "no address": ({"mc_addr": ""}, "mc_addr", "missing"),
    "no key": ({"mc_nwk_s_key": ""}, "mc_key", "not clear"),
    "two ways at once": ({"mc_key": f'"{"0f" * 16}"'}, "mc_key", "not clear"),
    "half of each": ({"mc_key": f'"{"0f" * 16}"', "mc_nwk_s_key": ""}, "mc_key", "not clear"),
    "short key": ({"mc_app_s_key": '"12"'}, "mc_app_s_key", "32 hex digits, this has 2"),
    "key elsewhere": ({"mc_nwk_s_key": '{ file = "absent" }'}, "mc_nwk_s_key", "no such file"),
    "Hz": ({"frequency": "869525000"}, "frequency", "<= 3000"),
    "data rate": ({"data_rate": "16"}, "data_rate", "<= 15"),
    "gateway": ({"gateways": '["aa"]'}, "gateways[1]", "16 hex digits"),
    "region": ({"region": '"EU686"'}, "region", "unknown region"),
    "unknown": ({"mc_adr": '"26011fff"'}, "mc_adr", "unknown key"),
}


@pytest.mark.parametrize("case", GROUP_CASES)
def test_what_is_wrong_with_a_group_is_told_by_its_dotted_path(tmp_path: Path, case: str) -> None:
    changes, field, says = GROUP_CASES[case]
    found, problems = load_groups(tmp_path, group(1) + group(2, **changes))
    assert [one.name for one in found] == ["g1"]
    assert [problem.where for problem in problems] == [f"{tmp_path}/meters.toml: multicast_group[2].{field}"]
    assert says in problems[0].what


def test_a_group_that_is_no_list_of_tables_is_told(tmp_path: Path) -> None:
    for text in ("[multicast_group]\nname = 'x'\n", "multicast_group = [3]\n"):
        _, (problem,) = load_groups(tmp_path, text)
        assert "[[multicast_group]]" in problem.hint


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        (group(1) + group(2, name='"g1"'), "multicast_group[2].name", "g1 is taken"),
        (another(1) + group(2, name='"d1"'), "multicast_group[1].name", "d1 is taken"),
        (group(1) + group(2, mc_addr='"2601ff01"'), "multicast_group[2].mc_addr", "2601ff01 is taken"),
        (
            another(1, dev_addr='"2601ff01"') + group(1),
            "multicast_group[1].mc_addr",
            "2601ff01 is the address of a device",
        ),
    ],
)
def test_a_group_shares_neither_name_nor_address(tmp_path: Path, text: str, where: str, says: str) -> None:
    _, (problem,) = load_groups(tmp_path, text)
    assert problem.where == f"{tmp_path}/meters.toml: {where}"
    assert says in problem.what
    assert not problem.warning


def test_weak_and_shared_keys_of_a_group_are_warned_of(tmp_path: Path) -> None:
    shared = f'"{K1}"'
    text = group(1, mc_nwk_s_key=f'"{"00" * 16}"') + group(2, mc_nwk_s_key=shared, mc_app_s_key=shared)
    found, problems = load_groups(tmp_path, text + another(3, nwk_s_key=f'"{K4}"') + group(4, mc_app_s_key=f'"{K4}"'))
    assert len(found) == 3
    assert all(problem.warning for problem in problems)
    assert sorted(problem.what for problem in problems) == sorted(
        [
            "this key is all zeros",
            "this key is also mc_app_s_key here",
            f"this key is shared by 2 devices or groups (another one: {tmp_path}/meters.toml: multicast_group[3])",
        ]
    )


def test_a_folder_gives_the_devices_of_all_its_toml_files(tmp_path: Path) -> None:
    write(tmp_path / "b.toml", another(2))
    write(tmp_path / "a.toml", another(1))
    write(tmp_path / "a.toml~", "not = [ read")
    write(tmp_path / ".a.toml", "not = [ read")
    devices, problems = load_devices(tmp_path, credentials_dir=None)
    assert [device.name for device in devices] == ["d1", "d2"]
    assert problems == []


def test_a_folder_without_device_files_is_a_warning(tmp_path: Path) -> None:
    devices, (problem,) = load_devices(tmp_path, credentials_dir=None)
    assert devices == ()
    assert problem.warning


def test_keys_may_stand_in_files_and_credentials(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    write(credentials / "meter-app", K2.upper() + "\n", 0o440)  # systemd's access list shows as group bits
    write(tmp_path / "nwk.key", K1 + "\n", 0o400)
    text = another(1, nwk_s_key='{ file = "nwk.key" }', app_s_key='{ credential = "meter-app" }')
    (device,), problems = load(tmp_path, text, credentials)
    assert problems == []
    assert device.session_keys is not None
    assert device.session_keys.app_s_key is not None
    assert device.session_keys.f_nwk_s_int_key.reveal().hex() == K1
    assert device.session_keys.app_s_key.reveal().hex() == K2


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ('{ file = "absent.key" }', "no such file"),
        ('{ file = "open.key" }', "others can read"),
        ('{ file = "pipe" }', "no ordinary file"),
        ('{ file = "." }', "no ordinary file"),
        ('{ file = "long.key" }', "more than 1024 bytes"),
        ('{ file = "words.key" }', "32 hex digits, this has"),
        ('{ file = "nul\\u0000" }', "cannot read"),
        ('{ credential = "absent" }', "no such file"),
        ('{ credential = "../meters.toml" }', "no name of a credential"),
        ('{ credential = ".." }', "no name of a credential"),
        ('{ credential = "" }', "no name of a credential"),
        ('{ credential = "world" }', "others can read"),
        ('{ credential = "a", file = "b" }', "neither or both"),
        ("{}", "neither or both"),
    ],
)
def test_a_key_reference_that_leads_nowhere_is_told(tmp_path: Path, written: str, says: str) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    write(credentials / "world", K1, 0o444)
    write(tmp_path / "open.key", K1, 0o640)
    write(tmp_path / "long.key", K1 * 100)
    write(tmp_path / "words.key", "correct horse")
    os.mkfifo(tmp_path / "pipe", 0o600)
    problem = only_problem(tmp_path, another(1, nwk_s_key=written), credentials)
    assert problem.where == f"{tmp_path}/meters.toml: device[1].nwk_s_key"
    assert says in problem.what


def test_a_credential_without_a_credentials_directory_is_told(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, another(1, nwk_s_key='{ credential = "a" }'))
    assert "LoadCredential" in problem.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_device_file_that_others_can_reach_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "meters.toml", ABP, mode)
    devices, (problem,) = load_devices(path, credentials_dir=None)
    assert devices == ()
    assert problem.hint == f"chmod 600 {path}"


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", ABP)
    tmp_path.chmod(0o770)
    _, (problem,) = load_devices(tmp_path, credentials_dir=None)
    assert (problem.hint, problem.warning) == (f"chmod go-w {tmp_path}", False)


def test_a_missing_path_is_told(tmp_path: Path) -> None:
    devices, (problem,) = load_devices(tmp_path / "absent", credentials_dir=None)
    assert devices == ()
    assert "no such file" in problem.what


def test_a_pattern_is_told_to_be_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", ABP)
    devices, (problem,) = load_devices(tmp_path / "*.toml", credentials_dir=None)
    assert (devices, problem.hint) == ((), f'name the folder: devices = "{tmp_path}"')


def test_a_file_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "*.toml", ABP)
    devices, problems = load_devices(tmp_path / "*.toml", credentials_dir=None)
    assert (len(devices), problems) == (1, [])


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("# keys\n[[device]]\nname\n", ":3", "is no TOML"),
        ("[[device]\n", ":1", "is no TOML"),
        (b"[[device]]\nname = '\xff'\n", ":2", "no UTF-8"),
        ("a = " + "[" * 5000 + "]" * 5000, "", "nested too deeply"),
        ("a = " + "1" * 5000, "", "is no TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_told_with_the_line(tmp_path: Path, text: str | bytes, where: str, says: str) -> None:
    devices, (problem,) = load(tmp_path, text)
    assert devices == ()
    assert problem.where == f"{tmp_path}/meters.toml{where}"
    assert says in problem.what


CASES = {
    "short key": ('nwk_s_key = "1234"', "nwk_s_key", "32 hex digits, this has 4"),
    "no hex": (f'nwk_s_key = "{K1[:-1]}g"', "nwk_s_key", "other characters"),
    "key as a number": ("nwk_s_key = 12345", "nwk_s_key", "expected"),
    "unknown reference": ('nwk_s_key = { fil = "x" }', "nwk_s_key", "unknown field fil"),
    "short address": ('dev_addr = "2601"', "dev_addr", "8 hex digits"),
    "short DevEUI": ('dev_eui = "0004"', "dev_eui", "16 hex digits"),
    "unknown version": ('mac_version = "1.2"', "mac_version", "invalid enum value '1.2'"),
    "unknown activation": ('activation = "otta"', "activation", "invalid enum value"),
    "unknown policy": ('counter_policy = "lax"', "counter_policy", "invalid enum value"),
    "too few frames": ("confirm_frames = 1", "confirm_frames", ">= 2"),
    "negative gap": ("max_fcnt_gap = -1", "max_fcnt_gap", ">= 0"),
    "unknown region": ('region = "EU686"', "region", "unknown region"),
    "channel in Hz": ("channels = [868100000]", "channels[1]", "<= 3000"),
    "channel NaN": ("channels = [nan]", "channels[1]", ""),
    "channels no list": ("channels = 868.1", "channels", "array"),
    "tag no text": ("tags = { floor = 3 }", "tags", "expected str"),
    "empty name": ('name = ""', "name", "expected str matching"),
    "name with a line break": ('name = "a\\nb"', "name", "expected str matching"),
    "name with a line break behind it": ('name = "a\\n"', "name", "expected str matching"),
    "root key of an ABP device": (f'app_key = "{K4}"', "app_key", "does not belong"),
    "key of 1.1": (f'nwk_s_enc_key = "{K4}"', "nwk_s_enc_key", "does not belong"),
    "JoinEUI of an ABP device": ('join_eui = "70b3d57ed0000001"', "join_eui", "does not belong"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_value_is_told_by_its_dotted_path(tmp_path: Path, case: str) -> None:
    line, field, says = CASES[case]
    name = line.split(" = ")[0]
    problem = only_problem(tmp_path, another(1) + another(2, **{name: line.split(" = ", 1)[1]}))
    assert problem.where == f"{tmp_path}/meters.toml: device[2].{field}"
    assert says in problem.what


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"nwk_s_key": ""}, ["nwk_s_key"]),
        ({"dev_addr": ""}, ["dev_addr"]),
        ({"dev_eui": "", "name": ""}, ["name", "dev_eui"]),
        ({"mac_version": '"1.1.0"', "nwk_s_key": ""}, ["f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key"]),
        ({"activation": '"otaa"', "dev_addr": "", "nwk_s_key": "", "app_s_key": ""}, ["join_eui", "app_key"]),
    ],
)
def test_what_is_missing_is_told_by_name(tmp_path: Path, changes: dict[str, str], missing: list[str]) -> None:
    devices, problems = load(tmp_path, another(1, **changes))
    assert devices == ()
    assert [problem.where.rsplit(".", 1)[1] for problem in problems] == missing
    assert all(problem.what == "is missing" and problem.hint for problem in problems)


def test_unknown_words_are_answered_with_the_likely_one(tmp_path: Path) -> None:
    text = "devices = 1\n" + another(1, nwk_skey='"x"', nwk_s_key="")
    _, problems = load(tmp_path, text)
    hints = {problem.where.split(": ")[1]: problem.hint for problem in problems}
    assert hints["devices"] == "did you mean device?"
    assert hints["device[1].nwk_skey"] == "did you mean nwk_s_key?"


@pytest.mark.parametrize("text", ["[device]\nname = 'x'\n", "device = 3\n", "device = [3]\n"])
def test_devices_that_are_no_tables_are_told(tmp_path: Path, text: str) -> None:
    assert "[[device]]" in only_problem(tmp_path, text).hint


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", another(1, nwk_s_key='"12"', app_s_key='"34"') + another(2, region='"EU"'))
    write(tmp_path / "b.toml", "= broken")
    write(tmp_path / "c.toml", another(3), 0o644)
    write(tmp_path / "d.toml", another(4) + another(5, dev_eui=f'"{4:016x}"'))
    devices, problems = load_devices(tmp_path, credentials_dir=None)
    assert len(devices) == 2
    assert [problem.where.removeprefix(f"{tmp_path}/") for problem in problems] == [
        "a.toml: device[1].nwk_s_key",
        "a.toml: device[1].app_s_key",
        "a.toml: device[2].region",
        "b.toml:1",
        "c.toml",
        "d.toml: device[2].dev_eui",
    ]


@pytest.mark.parametrize("field", ["dev_eui", "name"])
def test_what_must_be_a_devices_own_may_not_come_twice(tmp_path: Path, field: str) -> None:
    taken = {"dev_eui": f'"{1:016x}"', "name": '"d1"'}[field]
    write(tmp_path / "a.toml", another(1))
    write(tmp_path / "b.toml", another(2, **{field: taken}))
    _, (problem,) = load_devices(tmp_path, credentials_dir=None)
    assert problem.where == f"{tmp_path}/b.toml: device[1].{field}"
    assert f"{tmp_path}/a.toml: device[1]" in problem.hint
    assert not problem.warning


def test_two_devices_may_share_an_address_but_not_the_network_key_too(tmp_path: Path) -> None:
    same = {"dev_addr": '"26011bda"'}
    assert load(tmp_path, another(1, **same) + another(2, **same))[1] == []
    same["nwk_s_key"] = f'"{K3}"'
    _, problems = load(tmp_path, another(1, **same) + another(2, **same))
    assert [problem.warning for problem in problems] == [False, True]
    assert "cannot be told apart" in problems[0].what


def test_no_more_devices_share_an_address_than_are_tried(tmp_path: Path) -> None:
    same = {"dev_addr": '"26011bda"'}
    assert load(tmp_path, "".join(another(n, **same) for n in range(1, 17)))[1] == []
    _, (problem,) = load(tmp_path, "".join(another(n, **same) for n in range(1, 19)))
    assert problem.where.endswith("device[17].dev_addr")
    assert "18 devices" in problem.what
    assert not problem.warning


def test_a_key_in_two_places_is_one_warning(tmp_path: Path) -> None:
    (device,), (problem,) = load(tmp_path, another(1, nwk_s_key=f'"{K1}"', app_s_key=f'"{K1}"'))
    assert device.name == "d1"
    assert problem.warning
    assert "also app_s_key" in problem.what
    devices, (problem,) = load(tmp_path, "".join(another(n, app_s_key=f'"{K3}"') for n in range(1, 21)))
    assert len(devices) == 20
    assert problem.warning
    assert "shared by 20 devices" in problem.what


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("00" * 16, "all zeros"),
        ("88" * 16, "one byte"),
        ("2b7e151628aed2a6abf7158809cf4f3c", "FIPS 197"),
        (bytes(range(16)).hex(), "equal steps"),
        (bytes(range(1, 17)).hex(), "equal steps"),
        ("ffeeddccbbaa99887766554433221100", "equal steps"),
        ("15b1d0efa463dfbe3d11181e1ec7da85", "Heltec"),
    ],
)
def test_a_key_that_is_no_secret_is_a_warning(tmp_path: Path, key: str, says: str) -> None:
    devices, (problem,) = load(tmp_path, another(1, nwk_s_key=f'"{key}"'))
    assert len(devices) == 1
    assert problem.warning
    assert says in problem.what
    assert key not in str(problem)


def test_a_random_key_is_no_warning() -> None:
    assert [weakness(AES128Key.parse(key)) for key in (K1, K2, K3, K4)] == [None] * 4


def test_a_fingerprint_tells_keys_apart_and_nothing_of_them() -> None:
    found = [fingerprint(AES128Key.parse(key)) for key in (K1, K2, K3, K4)]
    assert len(set(found)) == 4
    assert all(len(one) == 8 for one in found)
    assert not any(one in key for one in found for key in (K1, K2, K3, K4))


def test_policy_off_is_a_loud_warning(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, another(1, counter_policy='"off"'))
    assert problem.warning
    assert "send it again" in problem.what


SECRET = "c0ffee5ec0ffee5ec0ffee5ec0ffee5e"  # what must never be seen


@pytest.mark.parametrize("damage", ["{0}", "{0}00", "{0}x", "x{0}", "{0}\\n\\n", "0x{0}", "{0}{0}"])
@pytest.mark.parametrize("field", ["nwk_s_key", "app_s_key", "app_key", "nwk_key", "nwk_s_enc_key"])
def test_no_problem_ever_tells_a_key(tmp_path: Path, damage: str, field: str) -> None:
    written = f'"{damage.format(SECRET)}"'
    text = another(1, **{field: written}) + another(2, **{field: written})
    devices, problems = load(tmp_path, text)
    told = "\n".join([*map(str, problems), *map(repr, problems), repr(devices)])
    assert SECRET[:8] not in told.lower()


words = st.sampled_from(
    ["name", "dev_eui", "mac_version", "activation", "dev_addr", "nwk_s_key", "tags", "channels", "x"]
)
texts = st.sampled_from(["meter", "1.0.3", "1.1.0", "otaa", K1, "26011bda", "0004a30b001c0530"]).map('"{}"'.format)
others = st.sampled_from(
    [
        "nan",
        "-inf",
        "1e400",
        "true",
        "1979-05-27",
        "07:32:00",
        "0xdead",
        "[]",
        "{}",
        '{file="/dev/zero"}',
        '{credential="a"}',
    ]
)
values = st.recursive(
    texts | others | st.integers().map(str) | st.text(max_size=5).map(repr),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=5,
)
tables = st.lists(st.tuples(words, values), max_size=12, unique_by=lambda pair: pair[0]).map(
    lambda pairs: "[[device]]\n" + "\n".join(f"{name} = {value}" for name, value in pairs) + "\n"
)


@pytest.fixture(scope="session")
def fuzz_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(text=st.lists(tables, max_size=4).map("".join))
def test_any_toml_gives_devices_or_problems(fuzz_folder: Path, text: str) -> None:
    devices, problems = load(fuzz_folder, text.encode("utf-8", "surrogatepass"))
    assert len(devices) == text.count("[[device]]") or any(not problem.warning for problem in problems)


@given(content=st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_devices_or_problems(fuzz_folder: Path, content: bytes) -> None:
    devices, problems = load(fuzz_folder, content)
    assert devices == ()
    assert all(problem.what for problem in problems)


@given(data=st.data())
def test_a_damaged_good_file_gives_devices_or_problems(fuzz_folder: Path, data: st.DataObject) -> None:
    good = (ABP + another(7)).encode()
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
    devices, problems = load(fuzz_folder, damaged)
    assert len(devices) <= 2
    assert devices or problems

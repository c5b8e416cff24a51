"""The configuration file: the example is in order, whatever is wrong is told at once and by its place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from lorabridge.daemon import config_text
from lorabridge.daemon.config import RADIO_TYPES, Config, load, parse, parse_dev_addr_range
from lorabridge.errors import ConfigError
from lorabridge.lorawan.types import EUI64, NetID
from lorabridge.radio.recording import RecordingSettings
from lorabridge.radio.semtech_udp import SemtechUdpSettings
from lorabridge.settings import bare_type
from lorabridge.store.device_settings import DeviceSettings, KeyReference
from tests.daemon.config_help import ENDPOINT, GATEWAY, SMALLEST, places_of, problems_of


def test_the_smallest_configuration_is_taken_with_every_default() -> None:
    config = parse(SMALLEST.encode(), "file")
    assert (config.gateway.id, config.link.endpoint, config.link.thing_name) == (GATEWAY, ENDPOINT, GATEWAY)
    assert config.radios == (SemtechUdpSettings(),)
    assert config.devices == Path("/etc/lorabridge/devices.d")
    assert config.network.duplicate_window == 1.5


def test_the_example_is_the_smallest_configuration_with_comments() -> None:
    example = parse(config_text.example().encode(), "example")
    written = tomllib.loads(config_text.example())
    assert {key: set(table) for key, table in written.items() if isinstance(table, dict) and table} == {
        "gateway": {"id"},
        "aws_iot": {"endpoint", "thing_name", "https", "chirpstack", "topics"},
    }
    smallest = parse(SMALLEST.encode(), "file")
    assert msgspec.structs.replace(example, gateway=smallest.gateway, aws_iot=smallest.aws_iot) == smallest


def test_what_the_example_has_commented_out_is_in_order_too() -> None:
    lines = config_text.example().splitlines()
    uncommented = [re.sub(r"^# (?=[a-z_0-9]+ = )", "", line) for line in lines]
    config = parse("\n".join(uncommented).encode(), "example")
    assert config.network.region == "EU868"
    assert config.network.dev_addr_ranges == ("26011000/20",)
    assert config.link.connect_address == "127.0.0.1:8883"
    assert isinstance(config.radios[0], SemtechUdpSettings)
    assert config.radios[0].networks == ("192.168.10.0/24", "fd00::/8")


def _settings_of(kind: type[msgspec.Struct], path: str = "") -> list[tuple[str, str]]:
    """(table, key) of every setting below a type."""
    found = []
    for field in msgspec.structs.fields(kind):
        bare = bare_type(field.type)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct) and bare is not KeyReference:
            found += _settings_of(bare, f"{path}.{field.encode_name}" if path else field.encode_name)
        elif field.encode_name != "radio":
            found.append((path, field.encode_name))
    return found


def test_every_setting_stands_in_the_example_and_on_the_reference_page_under_its_table() -> None:
    reference = {
        part.partition("\n")[0]: part for part in re.split(r"^## ", config_text.reference(), flags=re.MULTILINE)
    }
    example: dict[str, list[str]] = {"": []}
    for line in config_text.example().splitlines():
        header = re.fullmatch(r"\[+([a-z_.]+)\]+", line)
        if header:
            example[header[1]] = []
        example[list(example)[-1]].append(line.removeprefix("# "))
    settings = _settings_of(Config)
    assert len(settings) > 40
    for table, key in settings:
        assert f"| `{key}` |" in reference[f"`[{table}]`" if table else "Top level"]
        if table.partition(".")[0] != "mqtt":  # which stands in the place of [aws_iot]
            assert any(line.startswith(f"{key} = ") for line in example[table]), f"{table}.{key}"
    for name, kind in RADIO_TYPES.items():
        for _, key in _settings_of(kind):
            assert f"| `{key}` |" in reference[f'`[[radio]]` with `type = "{name}"`']


def test_every_setting_says_what_it_means() -> None:
    for kind in (Config, *RADIO_TYPES.values()):
        for row in config_text.rows(kind)[2:]:
            assert not row.endswith("|  |"), row


def test_every_key_of_a_device_has_a_row_in_words() -> None:
    rows = config_text.rows(DeviceSettings)[2:]
    assert [row.split("`")[1] for row in rows] == [
        field.encode_name for field in msgspec.structs.fields(DeviceSettings)
    ]
    said = {row.split("`")[1]: row for row in rows}
    assert said["dev_eui"].startswith("| `dev_eui` | 16 hex digits | required |")
    assert said["app_s_key"].startswith("| `app_s_key` | text or reference | none |")
    assert said["counter_policy"].startswith('| `counter_policy` | `"strict"` or `"confirm"` or `"off"` | `"strict"` |')
    assert said["tags"].startswith("| `tags` | table of texts | none |")
    assert said["channels"].startswith("| `channels` | list of number | none |")


class Awkward(msgspec.Struct):
    """A default that would end a table's cell."""

    choice: str = "a|b"
    half: float = 0.5


def test_a_bar_does_not_end_a_cell_of_the_reference_page() -> None:
    assert config_text.rows(Awkward)[2:] == [
        '| `choice` | text | `"a\\|b"` |  |',
        "| `half` | number | `0.5` |  |",
    ]


def test_everything_that_is_wrong_is_told_at_once_with_its_path() -> None:
    text = """
        devicse = "/x"
        [gateway]
        id = ""
        [network]
        net_ids = ["13"]
        region = "EU686"
        [store]
        durability = "maybe"
        outbox_max_bytes = "many"
        [aws_iot]
        endpoint = 7
        thing_nmae = "roof-1"
        [aws_iot.topics]
        uplink = 1
        [report]
        stats_interval = "soon"
        [log]
        level = "loud"
        [[radio]]
        type = "semtech_udp"
        prot = 1700
        [[radio]]
        type = "semtech_upd"
        """
    assert set(places_of(text)) == {
        "devicse",
        "gateway.id",
        "network.net_ids[1]",
        "store.durability",
        "store.outbox_max_bytes",
        "aws_iot.endpoint",
        "aws_iot.thing_nmae",
        "aws_iot.thing_name",
        "aws_iot.topics.uplink",
        "report.stats_interval",
        "log.level",
        "radio[1].prot",
        "radio[2].type",
    }
    hints = {problem.where.removeprefix("file: "): problem.hint for problem in problems_of(text)}
    assert hints["devicse"] == "did you mean devices?"
    assert hints["aws_iot.thing_nmae"] == "did you mean thing_name?"
    assert hints["radio[1].prot"] == "did you mean port?"
    assert hints["radio[2].type"] == "did you mean semtech_udp?"
    assert [place for place, hint in hints.items() if not hint] == ["network.net_ids[1]"], "which says it by itself"


def test_a_link_of_a_wrong_form_is_told_beside_other_tables_that_are_refused() -> None:
    wrong_endpoint = SMALLEST.replace(ENDPOINT, "192.0.2.7")
    assert places_of(wrong_endpoint + '[network]\nregion = "mars"') == ["network", "aws_iot.endpoint"]
    assert places_of(wrong_endpoint.replace(f'id = "{GATEWAY}"', 'id = ""')) == ["gateway.id", "aws_iot.endpoint"]
    assert places_of('[gateway]\nid = "a"\n[[radio]]\ntype = "semtech_udp"') == ["aws_iot"]
    assert places_of("aws_iot = 1\ngateway = 2\n[[radio]]\ntype = 'semtech_udp'") == ["gateway", "aws_iot"]


BROKER = SMALLEST.replace("[aws_iot]", "[mqtt]").replace("endpoint", "host").replace("thing_name", "client_id")


def test_a_broker_that_is_not_aws_stands_in_the_place_of_aws_iot() -> None:
    config = parse(BROKER.encode(), "file")
    assert config.aws_iot is None
    assert config.link is config.mqtt
    assert (config.link.endpoint, config.link.thing_name) == (ENDPOINT, GATEWAY)
    assert places_of(BROKER + "[aws_iot]") == ["aws_iot.endpoint", "aws_iot.thing_name", "mqtt"]
    assert places_of(BROKER.replace(f'"{ENDPOINT}"', '"127.1"')) == ["mqtt.host"]
    assert places_of(BROKER.replace(f'"{ENDPOINT}"', "7")) == ["mqtt.host"]
    assert places_of("mqtt = 7\n" + SMALLEST.replace("[aws_iot]", "[report.x]").partition("[report.x]")[0]) == [
        "radio",
        "mqtt",
    ]


def test_every_mistake_of_the_network_table_is_told() -> None:
    text = '[network]\nregion = "EU686"\nduplicate_window = "2min"\ndev_addr_ranges = ["26011000/33", "26011000/20"]\n'
    (problem,) = problems_of(SMALLEST + text)
    assert problem.where == "file: network"
    assert "did you mean EU868?" in problem.what
    assert "duplicate_window" in problem.what
    assert "'26011000/33'" in problem.what
    assert "26011000/20'" not in problem.what.replace("of the form 26011000/20", "")


@pytest.mark.parametrize(
    "text", ["", "26011000", "26011000/", "26011000/0", "26011000/33", "26011000/²", "2601100/20", "26011000/-1", "x/8"]
)
def test_an_address_range_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"26011000/20|hex digits"):
        parse_dev_addr_range(text)
    assert places_of(f"{SMALLEST}[network]\ndev_addr_ranges = ['{text}']") == ["network"]


def test_an_address_range_is_an_address_and_a_number_of_bits() -> None:
    assert parse_dev_addr_range("26011000/20") == (0x2601_1000, 20)
    assert parse(f'{SMALLEST}[network]\nnet_ids = ["000013"]'.encode(), "").network.net_ids == (NetID(0x13),)


@pytest.mark.parametrize(
    ("radio", "place", "said"),
    [
        ("", "radio", "no radio source"),
        ("radio = []", "radio", "no radio source"),
        ("[radio]\ntype = 'semtech_udp'", "radio", "no list of tables"),
        ("radio = 'semtech_udp'", "radio", "no list of tables"),
        ("radio = [1]", "radio[1].type", "missing"),
        ("[[radio]]\nport = 1", "radio[1].type", "missing"),
        ("[[radio]]\ntype = ''", "radio[1].type", "missing"),
        ("[[radio]]\ntype = ['semtech_udp']", "radio[1].type", "missing"),
        ("[[radio]]\ntype = 'lora'", "radio[1].type", "no radio type 'lora'"),
        ("[[radio]]\ntype = 'recording'", "radio[1].path", "missing"),
        ("[[radio]]\ntype = 'recording'\npath = '/r'\npace = 'slow'", "radio[1]", "slow"),
        ("[[radio]]\ntype = 'recording'\npath = '/r'\nname = 'My roof'", "radio[1].name", "[a-z0-9_]{1,32}"),
        ("[[radio]]\ntype = 'semtech_udp'\nbind = 'localhost'", "radio[1]", "no IP address"),
        ("[[radio]]\ntype = 'semtech_udp'\n[[radio]]\ntype = 'semtech_udp'", "radio[2].name", "'udp' is taken"),
    ],
)
def test_a_radio_that_cannot_be_is_told_by_its_number(radio: str, place: str, said: str) -> None:
    rest = SMALLEST.partition("[[radio]]")[0]
    (problem,) = problems_of(f"{radio}\n{rest}" if radio.startswith("radio =") else rest + radio)
    assert problem.where == f"file: {place}"
    assert said in problem.what
    assert problem.hint or place == "radio[1]"


def test_radios_of_several_types_keep_their_order() -> None:
    text = SMALLEST + '[[radio]]\ntype = "recording"\nname = "roof_2"\npath = "/r"\ngateway_eui = "0016c001f153a14c"'
    config = parse(text.encode(), "file")
    assert [radio.name for radio in config.radios] == ["udp", "roof_2"]
    assert isinstance(config.radios[1], RecordingSettings)
    assert config.radios[1].gateway_eui == EUI64(0x0016_C001_F153_A14C)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('com_type = "I2C"', "I2C"),
        ('device = ""', "49 bytes"),
        (f'device = "/dev/{"x" * 45}"', "49 bytes"),
        ("silence = 1", "silence"),
        ('start_timeout = "3min"', "start_timeout"),
    ],
)
def test_a_concentrator_that_cannot_be_is_refused(line: str, said: str) -> None:
    (problem,) = problems_of(f'{SMALLEST}[[radio]]\ntype = "sx1302"\n{line}\n')
    assert said in f"{problem.what} {problem.where}"


def test_a_concentratord_that_cannot_be_is_refused() -> None:
    (problem,) = problems_of(f'{SMALLEST}[[radio]]\ntype = "concentratord"\nevent_url = "udp://x"\n')
    assert (problem.where, problem.what.partition(":")[0]) == ("file: radio[2]", "event_url")


@pytest.mark.parametrize(
    ("topic", "said"),
    [("a/b/c/d/e/f/g/h/i", "8 slashes"), ("x" * 257, "257 bytes"), ("a/{dev_eiu}", "unknown placeholder")],
)
def test_a_topic_that_aws_iot_would_refuse_is_refused_here(topic: str, said: str) -> None:
    (problem,) = problems_of(f'{SMALLEST}[aws_iot.topics]\nuplink = "{topic}"')
    assert problem.where == "file: aws_iot.topics.uplink"
    assert said in problem.what


@pytest.mark.parametrize("endpoint", ["192.0.2.7", "::1", "127.1", "0x7f000001"])
def test_an_address_in_the_place_of_the_endpoints_name_is_refused(endpoint: str) -> None:
    (problem,) = problems_of(SMALLEST.replace(ENDPOINT, endpoint))
    assert (problem.where, "connect_address" in problem.hint) == ("file: aws_iot.endpoint", True)


def test_a_warning_refuses_nothing() -> None:
    text = SMALLEST.replace(ENDPOINT, "a1b2.iot.eu-west-1.amazonaws.com")
    assert parse(text.encode(), "file").link.endpoint == "a1b2.iot.eu-west-1.amazonaws.com"


@pytest.mark.parametrize("size", [-1, 1 << 63, 10**400, "true", "1.5", "'1EiB'"])
def test_a_size_is_what_a_machine_can_count(size: object) -> None:
    assert places_of(SMALLEST.replace("[[radio]]", f"max_bytes_per_second = {size}\n[[radio]]")) == [
        "aws_iot.max_bytes_per_second"
    ]


@pytest.mark.parametrize("table", ["stats_interval = 0.5", "security_interval = '10ms'"])
def test_reports_are_at_least_a_second_apart(table: str) -> None:
    assert places_of(f"{SMALLEST}[report]\n{table}") == ["report"]


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"[gateway",
        b"a = 1\na = 2",
        b"x = " + b"9" * 5000,
        b"x = " + b"[" * 5000,
        b"x = 1979-02-30",
    ],
    ids=["no UTF-8", "no end", "twice", "an integer of 5000 digits", "nested 5000 deep", "no such day"],
)
def test_what_is_no_toml_is_one_problem(text: bytes) -> None:
    (problem,) = problems_of(text)
    assert problem.what.startswith("is no TOML")


@pytest.mark.parametrize("key", ["type", "name", "port", "networks"])
def test_a_table_nested_beyond_all_reason_is_refused_as_any_other_value(key: str) -> None:
    deep = f"{key}.{'a.' * 4000}a = 1"
    radio = "[[radio]]\n" if key == "type" else ""
    assert [place.partition(".")[0] for place in places_of(f"{SMALLEST}{radio}{deep}")] == [
        "radio[2]" if key == "type" else "radio[1]"
    ]
    assert "unknown key" in str(problems_of(deep.replace(key, "extra", 1) + SMALLEST)[0])


def test_a_file_is_known_by_a_fingerprint_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "lorabridge.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    config, fingerprint = load(path)
    assert config == parse(SMALLEST.encode(), "")
    assert re.fullmatch("[0-9a-f]{16}", fingerprint)
    assert load(path)[1] == fingerprint
    path.write_text(f"{SMALLEST}\n", encoding="utf-8")
    assert load(path)[1] != fingerprint


def test_a_file_that_cannot_be_read_is_the_operators_turn(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(ConfigError) as refused:
            load(path)
        (problem,) = refused.value.problems
        assert problem.where == str(path)
        assert "config example" in problem.hint

"""The contract of `lorabridge decode` (docs/decode.md), through the program as scripts see it."""

from __future__ import annotations

import argparse
import base64
import io
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lorabridge.cli import decode
from lorabridge.errors import ConfigError
from lorabridge.lorawan.types import MacVersion
from tests.vector_files import vector_id, vectors

KEY_NAMES = (
    "nwk_s_key",
    "app_s_key",
    "f_nwk_s_int_key",
    "s_nwk_s_int_key",
    "nwk_s_enc_key",
    "app_key",
    "nwk_key",
    "js_int_key",
    "js_enc_key",
)
PASSED_ON = (
    "conf_fcnt",
    "tx_dr",
    "tx_ch",
    "f_opts_encrypted",
    "join_eui",
    "dev_eui",
    "dev_nonce",
    "join_req_type",
    "direction",
)
KINDS = {
    "uplink_1_0": "1.0.3",
    "uplink_1_1": "1.1",
    "downlink_1_0": "1.0",
    "downlink_1_1": "1.1.0",
    "join_request": None,
    "join_accept_1_0": "1.0.4",
    "join_accept_1_1": "1.1",
    "rejoin_0": "1.1",
    "rejoin_1": "1.1",
    "rejoin_2": "1.1",
    "proprietary": None,
    "malformed": None,
}
GOOD = "40f17dbe4900020001954378762b11ff0d"
NWK_S_KEY = "44024241ed4ce9a68c6a8bc055233fd3"
APP_S_KEY = "ec925802ae430ca77fd3dd73cb2cc588"
ALL_VECTORS = [vector for kind in KINDS for vector in vectors(kind)]


def program(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The command, as a shell would start it."""
    argv = [sys.executable, "-m", "lorabridge.cli.main", "decode", *words]
    return subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=60)


def run_in_process(
    stdin: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """The command within this process: exit status and output."""
    parser = argparse.ArgumentParser()
    decode.add_arguments(parser)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    return decode.run(parser.parse_args(list(words))), capsys.readouterr().out


def question(vector: dict[str, Any]) -> dict[str, Any]:
    """A vector as a line of input."""
    given = vector["input"]
    keys = {name: given[name] for name in KEY_NAMES if name in given}
    if "decrypt_key" in given:
        keys[given["decrypt_key_name"]] = given["decrypt_key"]
    asked = {"id": vector["id"], "phy_payload": given["phy_payload"], "keys": keys}
    asked |= {name: given[name] for name in PASSED_ON if name in given}
    if "full_fcnt" in given:
        asked["fcnt32"] = given["full_fcnt"]
    mac_version = given.get("lorawan_version") or KINDS[vector["kind"]]
    return asked if mac_version is None else asked | {"mac_version": mac_version}


@cache
def answers() -> dict[str, dict[str, Any]]:
    """What the program says to every vector, in one run."""
    lines = b"".join(json.dumps(question(vector)).encode() + b"\n" for vector in ALL_VECTORS)
    done = program("--jsonl", stdin=lines)
    assert (done.returncode, done.stderr) == (0, b"")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in found] == [vector["id"] for vector in ALL_VECTORS]
    return {answer["id"]: answer for answer in found}


RENAMED = {
    "mtype": "m_type",
    "fctrl": "f_ctrl",
    "fcnt": "fcnt16",
    "frm_payload_encrypted": "frm_payload",
    "frm_payload": "frm_payload_decrypted",
}
OF_OTHER_STAGES = {"mac_commands", "accept", "reason", "stage", "spec"}


@pytest.mark.parametrize("vector", [v for v in ALL_VECTORS if v["kind"] != "malformed"], ids=vector_id)
def test_every_vector_is_answered_exactly(vector: dict[str, Any]) -> None:
    answer, expect = answers()[vector["id"]], vector["expect"]
    assert answer["ok"] is True
    wanted = {RENAMED.get(name, name): value for name, value in expect.items() if name not in OF_OTHER_STAGES}
    assert {name: answer[name] for name in wanted} == wanted
    if "full_fcnt" in vector["input"]:
        assert answer["fcnt32"] == vector["input"]["full_fcnt"]


@pytest.mark.parametrize("vector", vectors("malformed"), ids=vector_id)
def test_every_malformed_vector_is_told_by_its_reason(vector: dict[str, Any]) -> None:
    answer, expect = answers()[vector["id"]], vector["expect"]
    if expect.get("stage") == "parse":
        assert not answer["ok"]
        assert answer["error"]["reason"] == expect["reason"]
        assert set(answer) == {"id", "ok", "error"}
    else:
        assert answer["ok"]
        assert answer["mic_valid"] is expect["accept"]


UPLINK_FIELDS = [
    "id",
    "ok",
    "m_type",
    "major",
    "dev_addr",
    "f_ctrl",
    "fcnt16",
    "fcnt32",
    "f_opts",
    "f_opts_decrypted",
    "f_port",
    "frm_payload",
    "frm_payload_decrypted",
    "mic",
    "mic_valid",
]


def test_a_data_frame_has_exactly_the_promised_fields() -> None:
    answer = answers()["pub-uplink_1_0-005"]
    assert list(answer) == UPLINK_FIELDS
    assert list(answer["f_ctrl"]) == ["adr", "ack", "f_opts_len", "adr_ack_req", "class_b"]
    assert list(answers()["pub-downlink_1_0-001"]["f_ctrl"]) == ["adr", "ack", "f_opts_len", "f_pending"]


def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *lines: bytes) -> list[dict[str, Any]]:
    """The answers to raw lines, within this process."""
    status, out = run_in_process(b"\n".join(lines) + b"\n", monkeypatch, capsys, "--jsonl")
    assert status == 0
    assert out.isascii()
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == len(lines)
    return found


def test_a_bad_line_costs_one_error_object_and_the_next_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = json.dumps({"id": "good", "phy_payload": GOOD}).encode()
    bad = {
        b"": (None, "bad_json"),
        b"nonsense": (None, "bad_json"),
        b'{"id": 1, "phy_payload": "40"': (None, "bad_json"),
        b'{"id": 1} {"id": 2}': (None, "bad_json"),
        b"\xff\xfe\x00": (None, "bad_json"),
        b'{"id": "\xff"}': (None, "bad_json"),
        b"[" * 100_000: (None, "bad_json"),
        b"9" * 10_000: (None, "bad_json"),
        b'{"id": 2, "phy_payload": NaN}': (2, "bad_json"),
        b'{"id": NaN, "phy_payload": ""}': (None, "bad_json"),
        b'{"id": 2, "tx_dr": 1e999}': (2, "bad_json"),
        b'{"id": 3, "phy_payload": "", "phy_payload": "40"}': (3, "bad_json"),
        b'{"id": 3, "id": 4, "phy_payload": ""}': (None, "bad_json"),
        b'{"id": 3, "keys": {"app_key": "00", "app_key": "01"}}': (3, "bad_json"),
        b"5": (None, "bad_input"),
        b"null": (None, "bad_input"),
        b'["id"]': (None, "bad_input"),
        b"{}": (None, "bad_input"),
        b'{"id": "x", "phy_payload": null}': ("x", "bad_input"),
        b'{"id": "x", "phy_payload": 40}': ("x", "bad_input"),
        b'{"id": "x", "phy_payload": "z!"}': ("x", "bad_input"),
        b'{"id": "x", "phy_payload": "4"}': ("x", "bad_input"),
        b'{"id": 1.5, "phy_payload": "' + b"40" * (1 << 19) + b'"}': (None, "bad_json"),
    }
    lines = [line for hostile in bad for line in (hostile, good)]
    found = ask(monkeypatch, capsys, *lines)
    for (question_id, reason), answer in zip(bad.values(), found[::2], strict=True):
        assert (answer["id"], answer["ok"], answer["error"]["reason"]) == (question_id, False, reason)
        assert answer["error"]["message"]
    assert all(answer["id"] == "good" and answer["ok"] for answer in found[1::2])


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("mac_version", "1.2", "bad_input"),
        ("mac_version", 1.1, "bad_input"),
        ("direction", "sideways", "bad_input"),
        ("fcnt32", -1, "bad_input"),
        ("fcnt32", 1 << 32, "bad_input"),
        ("fcnt32", 2.0, "bad_input"),
        ("fcnt32", True, "bad_input"),
        ("fcnt32", "2", "bad_input"),
        ("last_fcnt32", 10**30, "bad_input"),
        ("conf_fcnt", -1, "bad_input"),
        ("tx_dr", 256, "bad_input"),
        ("tx_ch", 256, "bad_input"),
        ("f_opts_encrypted", 1, "bad_input"),
        ("join_eui", "0102", "bad_input"),
        ("dev_eui", 7, "bad_input"),
        ("dev_nonce", 65536, "bad_input"),
        ("join_req_type", 3, "bad_input"),
        ("keys", "44024241", "bad_input"),
        ("keys", {"nwk_s_key": "44"}, "bad_key"),
        ("keys", {"nwk_s_key": NWK_S_KEY[:-1] + "x"}, "bad_key"),
        ("keys", {"nwk_s_key": 5}, "bad_key"),
        ("received_at", -1, "bad_input"),
        ("received_at", "yesterday", "bad_input"),
        ("received_at", "2026-01-01T00:00:00", "bad_input"),
        ("received_at", "1969-12-31T23:59:59Z", "bad_input"),
        ("gateway_eui", "1", "bad_input"),
        ("frequency", 0, "bad_input"),
        ("frequency", "868.1", "bad_input"),
        ("frequency", True, "bad_input"),
        ("data_rate", "SF7", "bad_input"),
        ("data_rate", -50000, "bad_input"),
    ],
)
def test_a_field_out_of_range_is_an_error_of_its_line(
    field: str, value: Any, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({"id": [field], "phy_payload": GOOD, field: value}).encode()
    (answer,) = ask(monkeypatch, capsys, line)
    assert answer["id"] == [field]
    assert not answer["ok"]
    assert answer["error"]["reason"] == reason
    assert field in answer["error"]["message"]
    assert NWK_S_KEY[:8] not in answer["error"]["message"]


def test_null_and_unknown_fields_are_as_if_absent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"id": 1, "phy_payload": GOOD}
    names = ["mac_version", "direction", "keys", "fcnt32", "last_fcnt32", "conf_fcnt", "tx_dr", "tx_ch", "received_at"]
    names += ["f_opts_encrypted", "join_eui", "dev_eui", "dev_nonce", "join_req_type", "frequency", "data_rate"]
    nulls = plain | dict.fromkeys([*names, "gateway_eui"])
    more = plain | {"comment": {"deep": [1]}, "keys": {"nwk_s_key": None, "gen_app_key": "not a key of a frame"}}
    first, second, third = ask(monkeypatch, capsys, *(json.dumps(line).encode() for line in (plain, nulls, more)))
    assert first == second == third
    assert first["mic_valid"] is None
    assert first["mic_detail"]


@pytest.mark.parametrize("question_id", [None, "a", "ü\ud800\n", 7, -1.5, 10**40, True, [1, {"x": None}], {}])
def test_the_id_comes_back_as_it_was_given(
    question_id: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"id": question_id, "phy_payload": hexed}).encode() for hexed in (GOOD, "40", "z!")]
    assert [answer["id"] for answer in ask(monkeypatch, capsys, *lines)] == [question_id] * 3


def test_an_id_too_deep_to_be_written_is_left_out() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert json.loads(decode.to_json({"id": deep, "ok": False})) == {"id": None, "ok": False}
    while deep:
        deep = deep.pop()


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.upper(),
        " 40f17dbe 49000200\t0195437876 2b11ff0d\r\n",
        base64.b64encode(bytes.fromhex(GOOD)).decode(),
        base64.b64encode(bytes.fromhex(GOOD)).decode().rstrip("="),
        base64.urlsafe_b64encode(bytes.fromhex(GOOD)).decode(),
    ],
)
def test_bytes_are_read_in_hex_and_in_every_base64(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = ask(monkeypatch, capsys, json.dumps({"phy_payload": text}).encode())
    assert (answer["frm_payload"], answer["mic"]) == ("95437876", "2b11ff0d")


def test_both_alphabets_of_base64_may_be_mixed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["-DS4CGaDCdG+48eJNM3Vai-zDpsR71Pn9CPA9uCON84", "+DS4CGaDCdG-48eJNM3Vai+zDpsR71Pn9CPA9uCON84="]
    first, second = ask(monkeypatch, capsys, *(json.dumps({"phy_payload": text}).encode() for text in texts))
    assert first == second
    assert first["m_type"] == "proprietary"


def test_only_hex_digits_are_hex_even_where_base64_could_be_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = ask(monkeypatch, capsys, b'{"phy_payload": "e005060708090a01"}')
    assert answer["payload"] == "05060708090a01"


@pytest.mark.parametrize("text", ["====", "QQ===", "Q", "Q=Q=", "QÜ", "\ud800", "40 f1 7", "QUJD!", "40:f1"])
def test_what_is_neither_is_bad_input(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = ask(monkeypatch, capsys, json.dumps({"phy_payload": text}).encode())
    assert answer["error"]["reason"] == "bad_input"


def test_the_last_line_needs_no_newline_and_none_is_added(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({"phy_payload": GOOD}).encode()
    assert run_in_process(b"", monkeypatch, capsys, "--jsonl") == (0, "")
    for stdin in (line, line + b"\n", b"\xef\xbb\xbf" + line + b"\r\n"):
        status, out = run_in_process(stdin, monkeypatch, capsys, "--jsonl")
        assert (status, out.count("\n"), json.loads(out)["ok"]) == (0, 1, True)


def test_a_line_of_the_longest_size_is_read_and_a_longer_one_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({"phy_payload": GOOD}).encode()
    longest = line + b" " * (decode.MAX_LINE - 1 - len(line))
    found = ask(monkeypatch, capsys, longest, longest + b"  ", longest * 3, line)
    assert [answer["ok"] for answer in found] == [True, False, False, True]
    (last,) = ask(monkeypatch, capsys, b"x" * (3 * decode.MAX_LINE))
    assert last["error"]["reason"] == "bad_json"


@pytest.mark.parametrize("version", ["1.0", "1.1", *(version.value for version in MacVersion)])
def test_every_version_is_understood(
    version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"phy_payload": GOOD, "mac_version": version, "keys": {"nwk_s_key": NWK_S_KEY}},
        {"phy_payload": "c000112233112233445566778811228b658839", "mac_version": version},
    ]
    data, rejoin = ask(monkeypatch, capsys, *(json.dumps(line).encode() for line in lines))
    assert data["mic_valid"] is (None if version.startswith("1.1") else True)
    assert rejoin["ok"] is version.startswith("1.1")
    assert version.startswith("1.1") or rejoin["error"]["reason"] == "rfu_mtype"


# ---- the tree -------------------------------------------------------------------------------------------------------


def test_a_frame_as_an_argument_prints_a_tree() -> None:
    done = program(GOOD)
    assert done.returncode == 0
    assert b"dev_addr                49be7df1\n" in done.stdout
    assert b"  adr                   false\n" in done.stdout
    assert b"frm_payload_decrypted   -\n" in done.stdout
    assert b"f_opts                  (empty)\n" in done.stdout


def test_frames_are_printed_in_their_order_and_a_malformed_one_sets_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = run_in_process(b"", monkeypatch, capsys, "4E", GOOD, "z!")
    first, second, third = out.split("\n\n")
    assert status == decode.EXIT_MALFORMED
    assert "too_short" in first
    assert "49be7df1" in second
    assert "bad_input" in third


@pytest.mark.parametrize("words", [(), ("--jsonl", GOOD)])
def test_neither_frames_nor_jsonl_or_both_is_a_usage_error(words: tuple[str, ...]) -> None:
    done = program(*words)
    assert (done.returncode, done.stdout) == (decode.EXIT_USAGE, b"")
    assert b"--jsonl" in done.stderr


# ---- with devices ----------------------------------------------------------------------------------------------------


@pytest.fixture
def device_file(tmp_path: Path) -> Path:
    path = tmp_path / "devices.toml"
    path.write_text(f"""
[[device]]
name = "cellar ☂"
dev_eui = "70b3d57ed0000001"
mac_version = "1.0.3"
activation = "abp"
dev_addr = "49be7df1"
nwk_s_key = "{NWK_S_KEY}"
app_s_key = "{APP_S_KEY}"
""")
    path.chmod(0o600)
    return path


def test_with_devices_every_line_gets_its_verdict_in_order(device_file: Path) -> None:
    older = "40f17dbe49000200ab582703"
    frames = [GOOD, GOOD, older, GOOD[:-1] + "c", "40" + "00000049" + GOOD[10:], "60" + GOOD[2:], "40"]
    lines = "".join(json.dumps({"phy_payload": frame}) + "\n" for frame in frames)
    done = program("--jsonl", "--devices", str(device_file), stdin=lines.encode())
    assert (done.returncode, done.stderr) == (0, b"")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    verdicts = [
        "accepted",
        "retransmission",
        "counter_reset",
        "bad_mic",
        "unknown_device",
        "wrong_direction",
        "malformed",
    ]
    assert [answer["verdict"] for answer in found] == verdicts
    assert [answer.get("device") for answer in found] == ["cellar ☂"] * 3 + [None] * 4
    assert (found[0]["mic_valid"], found[0]["frm_payload_decrypted"]) == (True, b"test".hex())


def test_the_tree_shows_the_verdict_and_nothing_that_a_terminal_would_obey(device_file: Path) -> None:
    done = program("--devices", str(device_file), GOOD)
    assert done.returncode == 0
    assert b"verdict                 accepted\n" in done.stdout
    assert b'device                  "cellar \\u2602"\n' in done.stdout


def test_device_files_with_errors_are_refused_before_the_first_line(device_file: Path) -> None:
    device_file.chmod(0o644)
    done = program("--jsonl", "--devices", str(device_file), stdin=b"{}\n")
    assert done.returncode not in {0, 1}
    assert done.stdout == b""
    assert str(device_file).encode() in done.stderr
    assert NWK_S_KEY.encode() not in done.stderr


def test_warnings_about_devices_go_to_standard_error(
    device_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device_file.write_text(device_file.read_text().replace(NWK_S_KEY, "000102030405060708090a0b0c0d0e0f"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(device_file.parent))
    parser = argparse.ArgumentParser()
    decode.add_arguments(parser)
    assert decode.run(parser.parse_args(["--devices", str(device_file), GOOD])) == 0
    captured = capsys.readouterr()
    assert "warning" in captured.err
    assert "bad_mic" in captured.out
    device_file.write_text(device_file.read_text().replace("abp", "abc"))
    with pytest.raises(ConfigError):
        decode.run(parser.parse_args(["--devices", str(device_file), GOOD]))

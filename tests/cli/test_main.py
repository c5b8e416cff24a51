"""The command line: which command, and what its exit status says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorabridge import __version__
from lorabridge.cli import config as config_command
from lorabridge.cli.main import COMMANDS, main
from tests.daemon.config_help import Installation
from tests.lorawan.builders import NWK_S_KEY, device
from tests.mosquitto import free_port

_LORABRIDGE = (sys.executable, "-m", "lorabridge.cli.main")


def _run(*command: str, without: str = "NOTIFY_SOCKET") -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith((without, "JOURNAL_STREAM"))}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environ, stdin=subprocess.DEVNULL
    )


def test_without_a_command_the_list_of_commands_is_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    for asked in ("help", "--help", "-h"):
        assert main([asked]) == 0
        assert capsys.readouterr().out == listed


def test_an_unknown_command_is_named_and_the_list_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chekc"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "unknown command 'chekc'" in told.err
    assert "\n  check " in told.err


@pytest.mark.parametrize("asked", ["--version", "-V"])
def test_the_version_is_told(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([asked]) == 0
    assert capsys.readouterr().out == f"lorabridge {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: lorabridge {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_wrong_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--no-such-option"])
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_only_the_command_that_runs_is_imported() -> None:
    script = (
        "import sys; from lorabridge.cli.main import main; main(['decode', '00']);"
        "print([name for name in sys.modules if name.startswith(('asyncio', 'paho', 'lorabridge.daemon'))])"
    )
    assert _run(sys.executable, "-c", script).stdout.splitlines()[-1] == "[]"


def test_whatever_is_wrong_with_the_configuration_is_printed_and_the_service_is_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "lorabridge.toml"
    path.write_text('[gateway]\nid = ""\n[aws_iot]\nendpiont = "x"\n', encoding="utf-8")
    done = _run(*_LORABRIDGE, "run", "--config", str(path))
    assert (done.returncode, done.stdout) == (78, "")
    places = [line.split(" ")[1].rstrip(":") for line in done.stderr.splitlines()]
    assert places == ["radio", "gateway.id", "aws_iot.endpiont", "aws_iot.endpoint", "aws_iot.thing_name"]


def test_in_the_journal_a_refused_configuration_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lorabridge.toml"
    path.write_text("[gateway\n", encoding="utf-8")
    journal = tmp_path / "journal"
    with journal.open("wb") as stream:
        status = os.fstat(stream.fileno())
        environ = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        command = [*_LORABRIDGE, "run", "--config", str(path)]
        done = subprocess.run(command, stderr=stream, env=environ, timeout=60, check=False)
    assert done.returncode == 78
    assert journal.read_text(encoding="utf-8").startswith(f"<3>{path}: ")


def test_a_disk_that_refuses_is_worth_another_try(tmp_path: Path) -> None:
    installation = Installation(tmp_path, device(), port=free_port())
    limited = 'ulimit -f 1; exec "$@"'  # files of 1 KiB at most
    done = _run(
        "bash", "-c", limited, "bash", *_LORABRIDGE, "run", "--config", str(installation.path), without="COVERAGE"
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("lorabridge run: ")
    assert "Traceback" not in done.stderr


def test_a_bug_ends_with_one_line_and_neither_a_traceback_nor_its_values(tmp_path: Path) -> None:
    installation = Installation(tmp_path, device())
    secret = NWK_S_KEY.reveal().hex()
    script = (
        "import sys; from lorabridge.cli import run; from lorabridge.cli.main import main\n"
        f"async def broken(*_, secret='{secret}'): raise RuntimeError('no place for ' + str(len(secret)))\n"
        "run._serve = broken\n"
        f"sys.exit(main(['run', '--config', '{installation.path}']))"
    )
    done = _run(sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (70, "")
    (line,) = done.stderr.splitlines()
    assert "a bug ended the bridge" in line
    assert "RuntimeError: no place for 32" in line
    assert "Traceback" not in line
    assert secret not in line


def test_a_reader_who_has_gone_is_no_reason_for_a_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*_LORABRIDGE, "config", "example"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_interrupt_is_the_shells_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(config_command, "run", interrupted)
    assert main(["config", "example"]) == 130


def test_the_arguments_of_the_process_are_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lorabridge", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"lorabridge {__version__}\n"

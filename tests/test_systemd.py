"""The service as it is shipped: how exposed it is, what installing leaves behind, what removing keeps."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests.components import component

ROOT = Path(__file__).parents[1]
SYSTEMD = ROOT / "systemd"
UNIT = SYSTEMD / "lorabridge.service"
SCRIPTS = sorted(
    path.relative_to(ROOT) for path in (*SYSTEMD.glob("*.sh"), *(ROOT / ".ci").iterdir()) if path.is_file()
)


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environ},
        timeout=110,
    )


@pytest.fixture
def systemd_analyze() -> str:
    return component("systemd-analyze", hint="it is part of Debian's package systemd")


def test_the_units_exposure_is_at_most_one_and_a_half(systemd_analyze: str) -> None:
    analysis = run(systemd_analyze, "security", "--offline=true", "--no-pager", UNIT)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", analysis.stdout)
    assert exposure is not None, analysis.stderr
    assert float(exposure[1]) <= 1.5


def test_systemd_finds_nothing_wrong_in_the_unit(systemd_analyze: str, tmp_path: Path) -> None:
    unit = tmp_path / "lorabridge.service"
    unit.write_text(UNIT.read_text().replace("/opt/lorabridge/bin/lorabridge", sys.executable))
    verification = run(systemd_analyze, "verify", "--man=no", unit)
    assert (verification.returncode, verification.stderr) == (0, "")


@pytest.mark.parametrize("example", sorted(SYSTEMD.glob("examples/*.conf")), ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_in_the_unit_with_an_example(
    systemd_analyze: str, tmp_path: Path, example: Path
) -> None:
    unit = tmp_path / "lorabridge.service"
    unit.write_text(
        UNIT.read_text().replace("/opt/lorabridge/bin/lorabridge", sys.executable) + "\n" + example.read_text()
    )
    verification = run(systemd_analyze, "verify", "--man=no", unit)
    assert (verification.returncode, verification.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_script_is_executable_sound_shell(script: Path) -> None:
    assert (ROOT / script).stat().st_mode & stat.S_IXUSR
    check = run(Path(sys.executable).with_name("shellcheck"), ROOT / script)
    assert (check.returncode, check.stdout) == (0, "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, as a gateway without a network gets it."""
    folder = tmp_path_factory.mktemp("wheels")
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, ROOT)
    assert built.returncode == 0, built.stderr
    return folder


def install(root: Path, wheels: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Install into `root` without a network: the dependencies are those of this test run."""
    return run(
        SYSTEMD / "install.sh",
        "--wheels",
        wheels,
        "--python",
        sys.executable,
        *options,
        DESTDIR=str(root),
        PIP_NO_DEPS="1",
        PYTHONPATH=next(path for path in sys.path if path.endswith("site-packages")),
    )


def modes(root: Path) -> dict[str, str]:
    """Every path below `root` with its kind and mode; the insides of the virtual environment left out."""
    return {
        str(path.relative_to(root)): stat.filemode(path.lstat().st_mode)
        for path in root.rglob("*")
        if not path.is_relative_to(root / "opt/lorabridge/lib") and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_installing_twice_is_installing_once_and_removing_keeps_what_is_the_operators(
    tmp_path: Path, wheels: Path
) -> None:
    first = install(tmp_path, wheels)
    assert first.returncode == 0, first.stderr
    tree = modes(tmp_path)
    assert (
        tree.items()
        >= {
            "etc/lorabridge": "drwxr-x---",
            "etc/lorabridge/lorabridge.toml": "-rw-r-----",
            "etc/lorabridge/devices.d": "drwx------",
            "etc/systemd/system/lorabridge.service": "-rw-r--r--",
            "etc/sysusers.d/lorabridge.conf": "-rw-r--r--",
            "etc/tmpfiles.d/lorabridge.conf": "-rw-r--r--",
            "opt/lorabridge/bin/lorabridge": "-rwxr-xr-x",
            "usr/local/bin/lorabridge": "lrwxrwxrwx",
            "var/lib/lorabridge": "drwx------",
        }.items()
    )
    assert (tmp_path / "usr/local/bin/lorabridge").readlink() == Path("/opt/lorabridge/bin/lorabridge")
    assert (tmp_path / "opt/lorabridge/bin/lorabridge").read_text().startswith("#!/opt/lorabridge/bin/python")

    configuration = tmp_path / "etc/lorabridge/lorabridge.toml"
    tomllib.loads(configuration.read_text())
    configuration.write_text("# the operator's own\n")
    (tmp_path / "etc/lorabridge/devices.d/door.toml").write_text("")
    second = install(tmp_path, wheels)
    assert second.returncode == 0, second.stderr
    assert configuration.read_text() == "# the operator's own\n"
    (tmp_path / "etc/lorabridge/devices.d/door.toml").unlink()
    assert modes(tmp_path) == tree

    (tmp_path / "var/lib/lorabridge/lorabridge.db").write_text("counters")
    drop_ins = tmp_path / "etc/systemd/system/lorabridge.service.d"
    drop_ins.mkdir()
    (drop_ins / "local.conf").write_text("[Service]\n")
    removed = run(SYSTEMD / "uninstall.sh", "--root", tmp_path)
    assert removed.returncode == 0
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()} == {
        "etc/lorabridge/lorabridge.toml",
        "etc/systemd/system/lorabridge.service.d/local.conf",
        "var/lib/lorabridge/lorabridge.db",
    }
    assert f"kept {drop_ins}\n" in removed.stdout
    assert not (tmp_path / "opt/lorabridge").exists()
    assert run(SYSTEMD / "uninstall.sh", "--root", tmp_path, "--purge").returncode == 0
    assert [path for path in tmp_path.rglob("*") if "lorabridge" in path.name] == []


@pytest.mark.slow
def test_the_installed_program_is_whole(tmp_path: Path, wheels: Path) -> None:
    assert install(tmp_path, wheels, "--with", "concentratord").returncode == 0
    venv = tmp_path / "opt/lorabridge"
    packaged = {path.relative_to(ROOT) for path in (ROOT / "lorabridge").rglob("*") if path.suffix in {".py", ".sql"}}
    (site,) = (venv / "lib").glob("python*/site-packages")
    assert {path for path in packaged if not (site / path).exists()} == set()
    for folder in ("firmware_configs", "hardware"):
        shipped = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {path for path in shipped if not (venv / "share/lorabridge" / path).exists()} == set()
    # -P: not out of this checkout; what the program needs is not among the wheels of this test.
    configure = ("-P", "-m", "lorabridge.cli.main", "radio", "configure", "--board", "rak5146", "--region", "EU868")
    needs = sysconfig.get_path("purelib")
    configured = run(venv / "bin/python", *configure, "--output", tmp_path / "radio", PYTHONPATH=needs)
    assert configured.returncode == 0, configured.stderr
    assert (tmp_path / "radio/reset_lgw.sh").exists()


def test_the_directories_of_tmpfiles_are_those_of_the_unit() -> None:
    unit = UNIT.read_text()
    listed = dict(re.findall(r"^d\s+(\S+)\s+(\d{4})\s", (SYSTEMD / "tmpfiles.d.conf").read_text(), flags=re.MULTILINE))
    assert f"StateDirectoryMode={listed['/var/lib/lorabridge']}" in unit
    assert f"ConfigurationDirectoryMode={listed['/etc/lorabridge']}" in unit
    assert "User=lorabridge" in unit
    assert re.search(r"^u lorabridge - ", (SYSTEMD / "sysusers.d.conf").read_text(), flags=re.MULTILINE)


@pytest.mark.skipif(os.getuid() != 0, reason="systemd-tmpfiles gives directories to root, which only root can do")
def test_sysusers_and_tmpfiles_are_understood_by_systemd(tmp_path: Path) -> None:
    sysusers = component("systemd-sysusers", hint="it is part of Debian's package systemd")
    tmpfiles = component("systemd-tmpfiles", hint="it is part of Debian's package systemd")
    account = run(sysusers, "--root", tmp_path, "--dry-run", SYSTEMD / "sysusers.d.conf")
    assert account.returncode == 0, account.stderr
    assert "lorabridge" in account.stdout + account.stderr
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        f"lorabridge:x:{os.getuid()}:{os.getgid()}::/:/bin/false\nroot:x:0:0::/:/bin/sh\n"
    )
    (tmp_path / "etc/group").write_text(f"lorabridge:x:{os.getgid()}:\n")
    made = run(tmpfiles, "--root", tmp_path, "--create", SYSTEMD / "tmpfiles.d.conf")
    assert made.returncode == 0, made.stderr
    assert stat.filemode((tmp_path / "etc/lorabridge/devices.d").stat().st_mode) == "drwx------"


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh"])
def test_the_system_is_touched_by_root_only(tmp_path: Path, script: str) -> None:
    # The answer of id(1) is changed and not the user: nobody else may be able to read this checkout.
    somebody = tmp_path / "id"
    somebody.write_text("#!/bin/sh\necho 1000\n")
    somebody.chmod(0o755)
    refused = run(SYSTEMD / script, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert refused.returncode == 1
    assert f"needs root: sudo systemd/{script}" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--wheels", "/nonexistent"), "no such directory"),
        (("--with", "concentrator"), "no such part; there is concentratord"),
        (("--python", "/bin/false"), "no Python 3.11 or newer"),
        (("--root",), "usage:"),
        (("--bogus",), "usage:"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    refused = run(SYSTEMD / "install.sh", *arguments, DESTDIR=str(tmp_path))
    assert refused.returncode in {1, 2}
    assert says in refused.stderr
    assert list(tmp_path.iterdir()) == []

"""Jobs are done with real files and real processes: the key never leaves, a bad certificate changes nothing."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from lorabridge.daemon.job_desk import JobDesk
from lorabridge.upstream.faults import LinkDown, LinkFault
from lorabridge.upstream.jobs import (
    FAILED,
    SUCCEEDED,
    InstallCertificate,
    Job,
    Operation,
    ReloadDevices,
    RequestCertificate,
)
from tests.pki import Authority
from tests.upstream.harness import link_settings


class Gateway:
    """Files in use, a desk, and how its jobs ended."""

    def __init__(self, folder: Path, proof_limit: float = 20.0) -> None:
        self.authority = Authority(folder)
        self.settings = link_settings(self.authority, 1)
        self.certificate, self.key = Path(self.settings.certificate_file), Path(self.settings.private_key_file)
        self.before = (self.certificate.read_bytes(), self.key.read_bytes())
        self.wrong = ""
        self.is_proved = False
        self.ended: asyncio.Queue[tuple[str, dict[str, str]]] = asyncio.Queue()
        self.desk = JobDesk(self.settings, self._reload, lambda: self.is_proved, proof_limit)

    async def _reload(self) -> str:
        return self.wrong

    def finish(self, _job: Job, status: str, details: dict[str, str]) -> None:
        self.ended.put_nowait((status, details))

    async def do(self, operation: Operation, *, is_resumed: bool = False) -> tuple[str, dict[str, str]]:
        self.desk.run(Job("j1", operation, is_resumed), self)
        async with asyncio.timeout(60):
            return await self.ended.get()

    async def requested(self) -> str:
        """Ask for a certificate, and sign it as the cloud would."""
        status, details = await self.do(RequestCertificate())
        assert status == SUCCEEDED
        return self.authority.sign(details["csr"].encode())

    async def installing(self, pem: str) -> asyncio.Task[tuple[str, dict[str, str]]]:
        """Begin to install, and wait until the files have changed."""
        task = asyncio.create_task(self.do(InstallCertificate(certificate_pem=pem)))
        async with asyncio.timeout(60):
            while self.files() == self.before and not task.done():  # noqa: ASYNC110  # another process changes them
                await asyncio.sleep(0.01)
        return task

    def mode_of(self, path: Path) -> int | None:
        """Permission bits, None when it is not there."""
        return stat.S_IMODE(path.stat().st_mode) if path.exists() else None

    def files(self) -> tuple[bytes, bytes]:
        return self.certificate.read_bytes(), self.key.read_bytes()


def test_devices_are_reloaded_or_it_is_said_why_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = Gateway(tmp_path)
        assert await gateway.do(ReloadDevices()) == (SUCCEEDED, {})
        gateway.wrong = "devices.toml: is no TOML"
        assert await gateway.do(ReloadDevices()) == (FAILED, {"reason": "devices.toml: is no TOML"})

    asyncio.run(scenario())


def test_a_certificate_is_renewed_for_a_key_that_never_leaves(tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = Gateway(tmp_path)
        pem = await gateway.requested()
        requested = Path(f"{gateway.key}.requested")
        assert gateway.mode_of(requested) == 0o600
        assert gateway.files() == gateway.before
        task = await gateway.installing(pem)
        assert gateway.certificate.read_text() == pem
        key = serialization.load_pem_private_key(gateway.key.read_bytes(), None)
        assert key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        gateway.desk.judged(None)
        assert await task == (SUCCEEDED, {})
        assert gateway.mode_of(requested) is None

    asyncio.run(scenario())


def test_a_certificate_that_does_not_prove_itself_goes_and_the_old_one_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = Gateway(tmp_path)
        task = await gateway.installing(await gateway.requested())
        gateway.desk.judged(LinkDown(LinkFault.CLIENT_CERTIFICATE_REFUSED, "alert"))
        status, details = await task
        assert (status, gateway.files()) == (FAILED, gateway.before)
        assert details["reason"].startswith("client_certificate_refused: alert")
        (tmp_path / "late").mkdir()
        gateway = Gateway(tmp_path / "late", proof_limit=0.1)
        status, details = await (await gateway.installing(await gateway.requested()))
        assert (status, gateway.files()) == (FAILED, gateway.before)
        assert "did not prove itself" in details["reason"]

    asyncio.run(scenario())


def of_another_key(gateway: Gateway) -> str:
    return gateway.authority.client("x", file="x").certificate.read_text()


def no_pem(_gateway: Gateway) -> str:
    return "-----BEGIN NONSENSE-----"


@pytest.mark.parametrize(("bad", "says"), [(of_another_key, "does not match"), (no_pem, "no certificate in PEM form")])
def test_a_certificate_that_cannot_be_ours_changes_nothing(
    tmp_path: Path, bad: Callable[[Gateway], str], says: str
) -> None:
    async def scenario() -> None:
        gateway = Gateway(tmp_path)
        first = await gateway.do(InstallCertificate(certificate_pem=of_another_key(gateway)))
        assert first[0] == FAILED
        assert "request-certificate comes first" in first[1]["reason"]
        await gateway.requested()
        status, details = await gateway.do(InstallCertificate(certificate_pem=bad(gateway)))
        assert status == FAILED
        assert says in details["reason"]
        assert gateway.files() == gateway.before
        assert gateway.mode_of(Path(f"{gateway.certificate}.trial")) is None

    asyncio.run(scenario())


def test_a_change_that_a_restart_interrupted_is_judged_by_the_link_that_came_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = Gateway(tmp_path, proof_limit=0.1)
        operation = InstallCertificate(certificate_pem=gateway.certificate.read_text())
        assert (await gateway.do(operation, is_resumed=True))[0] == FAILED
        gateway.is_proved = True
        assert await gateway.do(operation, is_resumed=True) == (SUCCEEDED, {})

    asyncio.run(scenario())


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = Gateway(tmp_path)
        missing = str(tmp_path / "missing" / "own.key")
        gateway.desk = JobDesk(
            msgspec.structs.replace(gateway.settings, private_key_file=missing), gateway._reload, lambda: False
        )
        status, details = await gateway.do(RequestCertificate())
        assert status == FAILED
        assert "must be able to write there" in details["reason"]

    asyncio.run(scenario())


def test_a_stop_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    create = asyncio.create_subprocess_exec

    async def noted(*arguments: Any, **how: Any) -> Any:
        made.append(await create(*arguments, **how))
        return made[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)

    async def scenario() -> None:
        gateway = Gateway(tmp_path)
        gateway.desk.stop()
        gateway.desk.run(Job("j1", RequestCertificate(), is_resumed=False), gateway)
        async with asyncio.timeout(60):
            while not made:  # noqa: ASYNC110  # it is about to be made
                await asyncio.sleep(0.01)
        gateway.desk.stop()
        async with asyncio.timeout(60):
            await made[0].wait()

    asyncio.run(scenario())

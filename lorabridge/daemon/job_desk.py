"""Does what a job orders: reload the devices, make a key and ask for its certificate, put a certificate into use."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from lorabridge.daemon.key_process import INSTALL, REQUEST, RESTORE, Answer
from lorabridge.daemon.log import Facts
from lorabridge.upstream.faults import LinkDown
from lorabridge.upstream.jobs import FAILED, SUCCEEDED, InstallCertificate, Job, ReloadDevices, RequestCertificate
from lorabridge.upstream.link_settings import LinkSettings
from lorabridge.upstream.tls import TlsSettings

_FACTS = Facts(logging.getLogger(__name__))

PROCESS_LIMIT = 60.0
PROOF_LIMIT = 300.0
"""Seconds that a new certificate has to prove itself; then the one before it comes back."""


class Finisher(Protocol):
    """Who is told how a job went: `upstream.jobs.Jobs`."""

    def finish(self, job: Job, status: str, details: dict[str, str]) -> None:
        """The job is over."""


class JobDesk:
    """One job at a time, each a task of its own. `reload` gives what is wrong with the device files."""

    def __init__(
        self,
        settings: LinkSettings,
        reload: Callable[[], Awaitable[str]],
        is_proved: Callable[[], bool],
        proof_limit: float = PROOF_LIMIT,
    ) -> None:
        """`is_proved`: whether the link uses the certificate that is in the files, and it has proved itself."""
        self._settings = settings
        self._reload = reload
        self._is_proved = is_proved
        self._proof_limit = proof_limit
        self._judgement: asyncio.Future[LinkDown | None] | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self, job: Job, finisher: Finisher) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._do(job, finisher), name=f"job {job.id}")

    def judged(self, refusal: LinkDown | None) -> None:
        """The link tried a new certificate: None when it proved itself."""
        if self._judgement is not None and not self._judgement.done():
            self._judgement.set_result(refusal)

    def stop(self) -> None:
        """Leave what is under way: it is resumed after the next start."""
        if self._task is not None:
            self._task.cancel()

    async def _do(self, job: Job, finisher: Finisher) -> None:
        try:
            error, details = await self._work(job)
        except Exception as bug:  # noqa: BLE001  # whoever ordered it must hear of it, and the next job must begin
            _FACTS.error("a bug ended a job", exc=bug, job=job.id)
            error, details = f"a bug: {type(bug).__name__}", {}
        if error:
            finisher.finish(job, FAILED, {"reason": error})
        else:
            finisher.finish(job, SUCCEEDED, details)

    async def _work(self, job: Job) -> tuple[str, dict[str, str]]:
        """Why it failed, empty when it did not, and what else is to be said of it."""
        operation = job.operation
        if isinstance(operation, ReloadDevices):
            return await self._reload(), {}
        if isinstance(operation, RequestCertificate):
            answer = await self._in_process(REQUEST)
            return answer.error, {"csr": answer.csr}
        return await self._replace(operation, is_resumed=job.is_resumed), {}

    async def _replace(self, operation: InstallCertificate, *, is_resumed: bool) -> str:
        """Install, and wait for the proof; why it did not come, with the old pair back in its place."""
        if is_resumed and await asyncio.to_thread(self._is_installed, operation.certificate_pem):
            return await self._resumed_proof()
        self._judgement = asyncio.get_running_loop().create_future()
        answer = await self._in_process(INSTALL, operation.certificate_pem)
        if answer.error:
            return answer.error
        try:
            refusal = await asyncio.wait_for(self._judgement, self._proof_limit)
        except TimeoutError:
            await self._in_process(RESTORE)
            return f"it did not prove itself within {self._proof_limit:g} s; the one before it is back"
        if refusal is None:
            return ""
        await self._in_process(RESTORE)
        return f"{refusal.fault}: {refusal.detail}; the one before it is back"

    async def _resumed_proof(self) -> str:
        """Before a restart it was put into its place; the link has used it since then, or is offline."""
        try:
            async with asyncio.timeout(self._proof_limit):
                while not self._is_proved():  # noqa: ASYNC110  # the link has no event for it
                    await asyncio.sleep(1.0)
        except TimeoutError:
            return "it is in its place and did not prove itself"
        return ""

    def _is_installed(self, certificate_pem: str) -> bool:
        try:
            return Path(self._settings.certificate_file).read_text(encoding="ascii") == certificate_pem
        except (OSError, ValueError):
            return False

    async def _in_process(self, verb: str, sent: str = "") -> Answer:
        names = TlsSettings.__struct_fields__
        settings = TlsSettings(**{name: getattr(self._settings, name) for name in names})
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lorabridge.daemon.key_process",
            verb,
            msgspec.json.encode(settings, enc_hook=float).decode(),  # a Duration is a number of seconds
            self._settings.thing_name,
            stdin=PIPE,
            stdout=PIPE,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(sent.encode("ascii", "replace")), PROCESS_LIMIT)
            return msgspec.json.decode(said, type=Answer)
        except (TimeoutError, msgspec.DecodeError):
            return Answer(error="the process that handles keys gave no answer")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

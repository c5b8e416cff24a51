"""The status socket: one answer to whoever may open it, and no other place is touched."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from lorabridge.daemon.status import StatusServer
from lorabridge.errors import ConfigError

ANSWER = {"healthy": True, "verdicts": {"accepted": 3}}


async def _asked(path: Path) -> Any:
    reader, writer = await asyncio.open_unix_connection(path)
    answer = json.loads(await reader.read())
    writer.close()
    await writer.wait_closed()
    return answer


def test_each_connection_gets_one_answer_and_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = StatusServer(tmp_path / "s.sock", lambda: ANSWER)
        await server.start()
        assert [await _asked(tmp_path / "s.sock") for _ in range(3)] == [ANSWER] * 3
        await server.stop()
        assert not (tmp_path / "s.sock").exists()
        await server.stop()

    asyncio.run(scenario())


def test_only_owner_and_group_may_ask(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = os.umask(0)
        try:
            server = StatusServer(tmp_path / "s.sock", lambda: ANSWER)
            await server.start()
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "s.sock").stat().st_mode) == 0o660
        await server.stop()

    asyncio.run(scenario())


def test_a_socket_left_by_a_run_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async def scenario() -> None:
        server = StatusServer(path, lambda: ANSWER)
        await server.start()
        assert await _asked(path) == ANSWER
        await server.stop()

    asyncio.run(scenario())


def test_a_place_that_is_not_ours_to_use_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file, folder = tmp_path / "notes.txt", tmp_path / "folder"
    file.write_text("mine", encoding="utf-8")
    folder.mkdir()
    for path in (file, folder, tmp_path / "missing" / "s.sock", file / "s.sock", tmp_path / ("x" * 120)):
        with pytest.raises(ConfigError) as refused:
            asyncio.run(StatusServer(path, lambda: ANSWER).start())
        (problem,) = refused.value.problems
        assert problem.where == str(path)
        assert problem.what
        assert "report.status_socket" in problem.hint
    assert file.read_text(encoding="utf-8") == "mine"
    assert folder.is_dir()


def test_who_hangs_up_before_the_answer_disturbs_nobody(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    answering = asyncio.Event()

    def answer() -> dict[str, Any]:
        answering.set()
        return {"padding": "x" * (4 << 20)}

    async def scenario() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        server = StatusServer(path, answer)
        await server.start()
        rude = socket.socket(socket.AF_UNIX)
        rude.setblocking(False)
        await asyncio.get_running_loop().sock_connect(rude, str(path))
        await answering.wait()
        rude.close()
        assert len((await _asked(path))["padding"]) == 4 << 20
        await server.stop()
        assert complaints == []

    asyncio.run(scenario())

"""What the quotas leave, and the call when there is some again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lorabridge.upstream.allowance import Allowance
from lorabridge.upstream.aws_settings import AwsIotSettings
from tests.upstream.harness import ENDPOINT, GATEWAY


def settings(**limits: Any) -> AwsIotSettings:
    return AwsIotSettings(endpoint=ENDPOINT, thing_name=GATEWAY, **limits)


@pytest.mark.parametrize("by", ["publishes", "bytes"])
def test_what_is_not_allowed_now_is_called_for_in_time_and_once(by: str) -> None:
    async def run() -> None:
        rates = {f"max_{by}_per_second": 8 if by == "publishes" else 1024 * 1024}
        called = asyncio.Event()
        calls: list[bool] = []

        def ready() -> None:
            calls.append(allowance.allows(1, patient=False))
            called.set()

        allowance = Allowance(settings(**rates), ready, with_commands=False)
        while allowance.allows(1, patient=False):
            allowance.take(1 if by == "publishes" else 256 * 1024)
        assert not allowance.allows(1, patient=True), "who asks later waits no less"
        async with asyncio.timeout(20):
            await called.wait()
        assert calls == [True]
        allowance.stop()

    asyncio.run(run())


def test_once_stopped_it_calls_nobody() -> None:
    async def run() -> None:
        calls: list[None] = []
        allowance = Allowance(settings(max_publishes_per_second=100), lambda: calls.append(None), with_commands=False)
        while allowance.allows(1, patient=False):
            allowance.take(1)
        allowance.stop()
        later = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, later.set_result, None)
        await later
        assert not calls

    asyncio.run(run())


def test_with_commands_half_as_many_leave_at_once() -> None:
    def burst(*, with_commands: bool) -> int:
        limited, taken = settings(max_publishes_per_second=80), 0
        allowance = Allowance(limited, lambda: None, with_commands=with_commands)
        while allowance._publishes.wait(1, 1000) <= 0:
            allowance.take(1)
            taken += 1
        return taken

    assert (burst(with_commands=False), burst(with_commands=True)) == (20, 10)

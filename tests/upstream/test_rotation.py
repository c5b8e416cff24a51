"""New certificates under load: proved beside the connection that works, given up without harm, never half a pair."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from lorabridge.upstream.aws_settings import AwsIotSettings
from lorabridge.upstream.credentials import DECISIVE, DOUBTFUL, DOUBTS, Credentials
from lorabridge.upstream.faults import LinkFault, LinkState
from tests.pki import Authority, Pair
from tests.upstream.harness import ENDPOINT, Upstream, link_settings, running
from tests.upstream.scripted_endpoint import ScriptedEndpoint, server_context, serving


class Guard(ScriptedEndpoint):
    """Knows its clients by the names in their certificates, and ends the old connection of one that comes again."""

    def __init__(self) -> None:
        super().__init__(on_publish=self._answer)
        self.names: list[str] = []
        """The name of each connection whose CONNECT was accepted."""
        self.refused: set[str] = set()
        self.muted: set[str] = set()
        """May connect, may not publish: the endpoint hangs up."""
        self._current: asyncio.StreamWriter | None = None

    def _answer(self, _topic: str) -> str:
        return "close" if self.names[-1] in self.muted else "ack"

    def _publish(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        name = _name(writer)
        return name not in self.muted and super()._publish(writer, body)

    def _connect(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        name = _name(writer)
        if name in self.refused:
            writer.write(b"\x20\x02\x00\x05")
            return False
        self.names.append(name)
        old, self._current = self._current, writer
        if old is not None:
            old.close()
        return super()._connect(writer, body)


def _name(writer: asyncio.StreamWriter) -> str:
    ((((_, name),),),) = (writer.get_extra_info("peercert")["subject"],)
    return str(name)


class Site:
    """The files of one gateway, and what can be put into them."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.stranger = Authority(folder, "Another Root")
        self.context = server_context(self.authority, self.authority.server(ENDPOINT))
        self.settings: AwsIotSettings
        self.folder = folder

    def install(self, pair: Pair) -> None:
        """Each file at once, as every careful program replaces a file; the two not together."""
        for source, target in (
            (pair.certificate, self.settings.certificate_file),
            (pair.key, self.settings.private_key_file),
        ):
            beside = Path(f"{target}.new")
            shutil.copy(source, beside)
            beside.chmod(0o600)
            beside.replace(target)


@asynccontextmanager
async def at_work(folder: Path, **more: float) -> AsyncIterator[tuple[Site, Guard, Upstream]]:
    """A link that is up with the certificate `first`."""
    site = Site(folder)
    async with serving(Guard(), site.context) as endpoint:
        assert isinstance(endpoint, Guard)
        files = {"certificate_file": str(folder / "own.pem"), "private_key_file": str(folder / "own.key")}
        site.settings = link_settings(site.authority, endpoint.port, **files)
        site.install(site.authority.client("first", file="first"))
        async with running(site.settings, **more) as upstream:
            await upstream.reported(lambda report: report.state is LinkState.ONLINE)
            upstream.commit(1)
            await upstream.outbox.until_empty()
            yield site, endpoint, upstream


def test_a_new_certificate_takes_over_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with at_work(tmp_path) as (site, endpoint, upstream):
            site.install(site.authority.client("second", file="second"))
            committed = 1
            while upstream.certificates != [None]:
                upstream.commit(20)
                committed += 20
                await asyncio.sleep(0.002)
            upstream.commit(20)
            await upstream.outbox.until_empty()
            assert endpoint.names == ["first", "second"]
            assert sorted(set(upstream.outbox.finished)) == list(range(1, committed + 21))
            assert len(upstream.outbox.finished) == committed + 20, "none was done twice"
            assert upstream.link.counters["certificates_replaced"] == 1
            assert upstream.link.counters["drops"] == 0, "a planned change is no fault"
            assert not upstream.link.report.rolled_back

    asyncio.run(scenario())


def test_a_new_certificate_waits_its_turn_after_a_connect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with at_work(tmp_path, connect_interval=1.0) as (site, endpoint, upstream):
            site.install(site.authority.client("second", file="second"))
            await upstream.until(lambda: upstream.certificates == [None])
            first, second = endpoint.connects
            assert second - first > 0.7, "one a second, less what a handshake may take"

    asyncio.run(scenario())


def of_a_stranger(site: Site, _endpoint: Guard) -> Pair:
    return site.stranger.client("new", file="new")


def not_attached(site: Site, endpoint: Guard) -> Pair:
    endpoint.refused.add("new")
    return site.authority.client("new", file="new")


def without_rights(site: Site, endpoint: Guard) -> Pair:
    endpoint.muted.add("new")
    return site.authority.client("new", file="new")


def with_the_wrong_key(site: Site, _endpoint: Guard) -> Pair:
    return Pair(site.authority.client("new", file="new").certificate, site.authority.client("x", file="x").key)


def with_half_a_file(site: Site, _endpoint: Guard) -> Pair:
    pair = site.authority.client("new", file="new")
    pair.certificate.write_bytes(pair.certificate.read_bytes()[:300])
    return pair


@pytest.mark.parametrize(
    ("bad", "connects"),
    [
        (of_a_stranger, ["first"]),
        (not_attached, ["first"]),
        (with_the_wrong_key, ["first"]),
        (with_half_a_file, ["first"]),
        (without_rights, ["first", *["new"] * DOUBTS, "first"]),
    ],
)
def test_a_certificate_that_is_refused_changes_nothing_and_the_next_good_one_is_taken(
    tmp_path: Path, bad: Callable[[Site, Guard], Pair], connects: list[str]
) -> None:
    async def scenario() -> None:
        async with at_work(tmp_path) as (site, endpoint, upstream):
            site.install(bad(site, endpoint))
            await upstream.until(lambda: len(upstream.certificates) == 1)
            assert upstream.certificates[0] in DECISIVE | DOUBTFUL
            upstream.commit(5)
            await upstream.outbox.until_empty()
            assert endpoint.names == connects, "the connection that works was kept, or come back to"
            assert upstream.link.report.rolled_back
            site.install(site.authority.client("third", file="third"))
            await upstream.until(lambda: upstream.certificates[1:] == [None])
            upstream.commit(5)
            await upstream.outbox.until_empty()
            assert endpoint.names == [*connects, "third"]
            assert upstream.parked == []
            assert upstream.link.counters["certificates_refused"] == 1

    asyncio.run(scenario())


def test_the_old_pair_is_used_when_the_link_breaks_over_bad_files(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with at_work(tmp_path) as (site, endpoint, upstream):
            site.install(with_the_wrong_key(site, endpoint))
            await upstream.until(lambda: upstream.certificates == [LinkFault.LOCAL_FILES])
            assert endpoint._current is not None
            endpoint._current.close()
            upstream.commit(5)
            await upstream.outbox.until_empty()
            assert endpoint.names == ["first", "first"]

    asyncio.run(scenario())


def test_a_certificate_that_was_not_active_yet_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with at_work(tmp_path, certificate_again=0.1) as (site, endpoint, upstream):
            site.install(not_attached(site, endpoint))
            await upstream.until(lambda: len(upstream.certificates) >= 1)
            endpoint.refused.clear()
            await upstream.until(lambda: upstream.certificates[-1] is None)
            assert endpoint.names == ["first", "new"]

    asyncio.run(scenario())


def test_a_stop_in_the_middle_of_a_change_leaves_nothing_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with at_work(tmp_path) as (site, endpoint, upstream):
            endpoint.connack = None
            site.install(site.authority.client("second", file="second"))
            await endpoint.until(lambda: len(endpoint.names) == 2)
        assert upstream.link.report.state is LinkState.STOPPED

    asyncio.run(scenario())


def _rewritten(pair: Pair, form: serialization.PrivateFormat, more: bytes = b"") -> Pair:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    pair.key.write_bytes(pem)
    pair.certificate.write_bytes(pair.certificate.read_bytes() + more)
    return pair


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_keys_in_either_form_and_files_with_a_chain_are_taken(
    tmp_path: Path, form: serialization.PrivateFormat
) -> None:
    async def scenario() -> None:
        async with at_work(tmp_path) as (site, endpoint, upstream):
            pair = site.authority.client("second", file="second")
            site.install(_rewritten(pair, form, site.authority.file.read_bytes()))
            await upstream.until(lambda: upstream.certificates == [None])
            assert endpoint.names == ["first", "second"]

    asyncio.run(scenario())


class Files:
    """Three files whose stamps change when told to, for the rules alone."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        self.settings = link_settings(authority, 1)
        self.credentials = Credentials(self.settings, retry_after=100.0)
        self.now = 0.0

    def touch(self) -> None:
        path = Path(self.settings.certificate_file)
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def test_files_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    files = Files(tmp_path)
    credentials = files.credentials
    assert not credentials.is_new(0.0), "nothing was proved yet: every connection reads the files anyway"
    credentials.proved(credentials.choose(0.0))
    assert not credentials.is_new(1.0)
    for now in range(2, 6):
        files.touch()
        assert not credentials.is_new(now)
    assert credentials.is_new(6.0)
    Path(files.settings.private_key_file).unlink()
    assert not credentials.is_new(7.0)
    assert credentials.is_new(8.0), "a file that is gone is told, not waited for in silence"


@pytest.mark.parametrize("fault", LinkFault)
def test_only_what_a_certificate_can_cause_is_held_against_it(tmp_path: Path, fault: LinkFault) -> None:
    files = Files(tmp_path)
    credentials = files.credentials
    old = credentials.choose(0.0)
    assert not credentials.failed(old, fault, 0.0), "there is nothing to go back to"
    credentials.proved(old)
    files.touch()
    new = credentials.choose(1.0)
    first, *later = [credentials.failed(new, fault, 1.0) for _ in range(DOUBTS)]
    assert first == (fault in DECISIVE)
    assert later[-1] == (fault in DECISIVE | DOUBTFUL)
    assert not any(later[:-1]) or fault in DECISIVE
    assert credentials.is_rolled_back == (fault in DECISIVE | DOUBTFUL)


def test_an_old_pair_that_is_refused_too_is_no_way_out(tmp_path: Path) -> None:
    files = Files(tmp_path)
    credentials = files.credentials
    old = credentials.choose(0.0)
    credentials.proved(old)
    files.touch()
    new = credentials.choose(1.0)
    assert credentials.failed(new, LinkFault.CLIENT_CERTIFICATE_REFUSED, 1.0)
    assert credentials.choose(2.0).stamp == old.stamp
    assert not credentials.failed(credentials.choose(2.0), LinkFault.CLIENT_CERTIFICATE_EXPIRED, 2.0)
    assert credentials.choose(3.0).stamp == new.stamp


def test_the_pair_in_memory_is_the_one_that_was_loaded(tmp_path: Path) -> None:
    files = Files(tmp_path)
    credentials = files.credentials
    first = credentials.choose(0.0)
    context = first.context()
    assert isinstance(context, ssl.SSLContext)
    credentials.proved(first)
    files.touch()
    assert credentials.failed(credentials.choose(1.0), LinkFault.LOCAL_FILES, 1.0)
    assert credentials.choose(2.0).context() is context

"""The private key of the connection in a TPM: the bridge as it is, and OpenSSL's provider beside it (docs/tpm.md)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509.oid import NameOID

from lorabridge.simulation.pki import Pair, Pki
from lorabridge.simulation.standin import Happening, Policy
from tests.e2e.forwarder import Forwarder
from tests.e2e.harness import LORABRIDGE, ROOT, Installation, Site, installed, open_site, wait_until
from tests.e2e.traffic import Account, device_file, frames
from tests.simulation.standin_help import GATEWAY, generous_policy
from tests.software_tpm import SoftwareTpm, skip_unless_python_uses_it, software_tpm

DEVICES, FRAMES = 2, 10
KINDS = ("EC", "RSA")

pytestmark = pytest.mark.slow


class Request:
    """What an authority asks of a signing request; of EC keys tpm2-openssl 1.1 makes ones that cryptography refuses."""

    def __init__(self, public_key: bytes) -> None:
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, GATEWAY)])
        self._public_key: Any = load_pem_public_key(public_key)

    def public_key(self) -> Any:
        return self._public_key


@pytest.fixture(scope="module")
def tpm() -> Iterator[SoftwareTpm]:
    skip_unless_python_uses_it()
    with tempfile.TemporaryDirectory(prefix="tpm-") as name, software_tpm(Path(name)) as started:
        yield started


def new_pair(tpm: SoftwareTpm, pki: Pki, kind: str, name: str, password: str = "") -> Pair:
    """A key in the TPM, and a certificate for it."""
    certificate, key = (pki.devices.folder / f"{name}.{end}" for end in ("pem", "key"))
    pem = pki.devices.sign(Request(tpm.new_key(kind, key, password)))  # type: ignore[arg-type]
    certificate.write_bytes(pem)
    assert key.read_bytes().startswith(b"-----BEGIN TSS2 PRIVATE KEY-----")
    return Pair(certificate, key, x509.load_pem_x509_certificate(pem).fingerprint(SHA256()).hex())


class Cloud:
    """A site whose gateway has its keys in the TPM: one of each kind, and one more for later."""

    def __init__(self, tpm: SoftwareTpm) -> None:
        self._tpm = tpm
        self.pairs: dict[str, Pair] = {}

    def policies(self, pki: Pki) -> dict[str, Policy]:
        for name in (*KINDS, "next"):
            self.pairs[name] = new_pair(self._tpm, pki, "EC" if name == "next" else name, f"tpm-{name}")
        return {pair.fingerprint: generous_policy() for pair in self.pairs.values()}


@pytest.fixture
def cloud(tpm: SoftwareTpm) -> Cloud:
    return Cloud(tpm)


@pytest.fixture
def site(cloud: Cloud) -> Iterator[Site]:
    with open_site(policies=cloud.policies) as opened:
        yield opened


def use(installation: Installation, pair: Pair) -> None:
    """Write this pair into the configuration."""
    gateway = installation.site.pki.gateway
    text = installation.configuration.read_text(encoding="utf-8")
    text = text.replace(f'"{gateway.certificate}"', f'"{pair.certificate}"').replace(
        f'"{gateway.key}"', f'"{pair.key}"'
    )
    installation.configuration.write_text(text, encoding="utf-8")


def check(installation: Installation, *before: str, word: str = "check") -> subprocess.CompletedProcess[str]:
    command = [*before, LORABRIDGE, word, "--config", str(installation.configuration)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("kind", KINDS)
def test_records_arrive_with_a_key_that_never_leaves_the_tpm(
    tpm: SoftwareTpm, cloud: Cloud, site: Site, kind: str
) -> None:
    sent = list(frames(DEVICES, FRAMES, seed=3))
    account = Account(site.published)
    with installed(site, device_file(DEVICES)) as installation:
        use(installation, cloud.pairs[kind])
        checked = check(installation, *tpm.command)
        assert checked.returncode == 0, checked.stdout
        assert "TPM" not in checked.stdout
        bridge = installation.start(command=(*tpm.command, LORABRIDGE))
        with Forwarder(installation.udp_port) as forwarder:
            for number, frame in enumerate(sent):
                forwarder.push([frame.rxpk(number)])
            forwarder.settle()
        installation.wait_judged(len(sent))
        installation.wait_drained()
        assert installation.status()["link_fault"] is None
        bridge.stop()
    account.read()
    account.assert_complete(sent)
    site.endpoint.happened(Happening.CONNECTED)


def test_a_new_key_in_the_tpm_is_proved_beside_the_old_one(tpm: SoftwareTpm, cloud: Cloud, site: Site) -> None:
    with installed(site, device_file(DEVICES)) as installation:
        used, following = cloud.pairs["EC"], cloud.pairs["next"]
        use(installation, used)
        bridge = installation.start(command=(*tpm.command, LORABRIDGE))
        wait_until(lambda: installation.status()["link"] == "online", "the link is up", 60)
        wait_until(lambda: len(site.payloads("status")) > 0, "the first status", 60)
        following.key.replace(used.key)
        following.certificate.replace(used.certificate)
        wait_until(lambda: "the new certificate proved itself" in bridge.log(), "the new pair is in use", 90)
        assert installation.counters()["link_certificates_replaced"] == 1
        bridge.stop()


def test_without_the_tpm_the_check_warns_and_the_link_says_what_it_needs(
    tpm: SoftwareTpm, cloud: Cloud, site: Site
) -> None:
    with installed(site, device_file(DEVICES)) as installation:
        use(installation, cloud.pairs["RSA"])
        checked = check(installation)
        assert checked.returncode == 0
        assert "is the key of a TPM that cannot be used from here" in checked.stdout
        bridge = installation.start()
        wait_until(lambda: installation.status()["link_fault"] == "local_files", "the fault has its name", 60)
        assert "docs/tpm.md" in f"{installation.status()}{bridge.log()}"
        bridge.stop()


def test_a_key_of_the_tpm_that_belongs_to_another_certificate_is_found(
    tpm: SoftwareTpm, cloud: Cloud, site: Site
) -> None:
    with installed(site, device_file(DEVICES)) as installation:
        for other in ("next", "RSA"):
            mixed = Pair(cloud.pairs["EC"].certificate, cloud.pairs[other].key, "")
            use(installation, mixed)
            checked = check(installation, *tpm.command)
            assert checked.returncode != 0
            assert "does not match the certificate" in checked.stdout
            text = installation.configuration.read_text(encoding="utf-8")
            text = text.replace(str(mixed.certificate), str(site.pki.gateway.certificate))
            text = text.replace(str(mixed.key), str(site.pki.gateway.key))
            installation.configuration.write_text(text, encoding="utf-8")


def test_a_key_that_asks_for_a_password_is_refused_and_nobody_is_asked(
    tpm: SoftwareTpm, cloud: Cloud, site: Site
) -> None:
    with installed(site, device_file(DEVICES)) as installation:
        use(installation, new_pair(tpm, site.pki, "RSA", "sealed", "a password of a test"))
        checked = check(installation, *tpm.command)
        assert checked.returncode != 0
        assert "is the key of a TPM that asks for a password" in checked.stdout


def test_the_doctor_walks_the_whole_way_with_the_tpm_and_without_it_stops_at_tls(
    tpm: SoftwareTpm, cloud: Cloud, site: Site
) -> None:
    with installed(site, device_file(DEVICES)) as installation:
        use(installation, cloud.pairs["EC"])
        able = check(installation, *tpm.command, word="doctor")
        assert able.returncode == 0, able.stdout
        assert "PUBACK for" in able.stdout
        unable = check(installation, word="doctor")
        assert unable.returncode != 0
        assert "TPM" in unable.stdout
        assert "PUBACK for" not in unable.stdout

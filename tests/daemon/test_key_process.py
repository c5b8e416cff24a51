"""What the process that handles our own key does to the files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lorabridge.daemon.key_process import REQUEST, Answer, main
from lorabridge.upstream.tls import TlsSettings
from tests.upstream.harness import ENDPOINT, GATEWAY


@pytest.fixture
def settings(tmp_path: Path) -> TlsSettings:
    return TlsSettings(
        endpoint=ENDPOINT,
        certificate_file=str(tmp_path / "certificate.pem"),
        private_key_file=str(tmp_path / "private-key.pem"),
    )


def request(settings: TlsSettings, capfdbinary: pytest.CaptureFixture[bytes]) -> Answer:
    assert main([REQUEST, msgspec.json.encode(settings, enc_hook=float).decode(), GATEWAY]) == 0
    return msgspec.json.decode(capfdbinary.readouterr().out, type=Answer)


def test_a_renewal_puts_no_key_into_a_file_in_the_place_of_one_in_a_tpm(
    settings: TlsSettings, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    Path(settings.private_key_file).write_text("-----BEGIN TSS2 PRIVATE KEY-----\n", encoding="ascii")
    assert "is in a TPM" in request(settings, capfdbinary).error
    assert [path.name for path in tmp_path.iterdir()] == ["private-key.pem"]


@pytest.mark.parametrize("held", ["", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_renewal_of_a_key_in_a_file_makes_the_next_one_beside_it(
    settings: TlsSettings, held: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    if held:
        Path(settings.private_key_file).write_text(held, encoding="ascii")
    answer = request(settings, capfdbinary)
    assert answer.error == ""
    assert answer.csr.startswith("-----BEGIN CERTIFICATE REQUEST-----")

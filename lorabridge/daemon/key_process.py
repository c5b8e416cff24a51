"""`python -m lorabridge.daemon.key_process VERB …`: makes and changes our own key in a process that ends afterwards.

The library for certificates costs the daemon 9 MB that it would never give back, and a key that was made
elsewhere is in no memory of its. Answers with one JSON object on standard output.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from lorabridge.store.certificate_files import CertificateFiles
from lorabridge.store.secret_files import write_private
from lorabridge.upstream import tls
from lorabridge.upstream.provisioning import new_key
from lorabridge.upstream.tls import TlsSettings

REQUEST, INSTALL, RESTORE = "request", "install", "restore"
_MAX_PEM: Final = 16_384


class Answer(msgspec.Struct, omit_defaults=True):
    """What came of it: `error` is empty when it went well."""

    error: str = ""
    csr: str = ""


def _request(files: CertificateFiles, settings: TlsSettings, name: str) -> Answer:
    """Refused when it would replace a key in a TPM by one in a file."""
    key = Path(settings.private_key_file)
    if key.exists() and tls.is_in_tpm(key.read_bytes()):
        return Answer(error="the private key is in a TPM, and so must the next one be: docs/tpm.md")
    _, pem, csr = new_key(name)
    write_private(files.requested_key, pem, replace=True)
    return Answer(csr=csr)


def _install(files: CertificateFiles, settings: TlsSettings, certificate_pem: str) -> Answer:
    """Change nothing unless the certificate is for the requested key, and valid today."""
    key = files.requested_key
    if not key.exists():
        return Answer(error="no certificate was requested: the job request-certificate comes first")
    trial = Path(f"{settings.certificate_file}.trial")
    try:
        trial.write_text(certificate_pem, encoding="ascii")
        asked = msgspec.structs.replace(settings, certificate_file=str(trial), private_key_file=str(key))
        problems = tls.check_files(asked, datetime.now(UTC))
    finally:
        trial.unlink(missing_ok=True)
    errors = [problem for problem in problems if not problem.warning]
    if errors:
        return Answer(error="; ".join(f"{problem.what} ({problem.hint})" for problem in errors))
    files.install(certificate_pem, key.read_text(encoding="ascii"))
    key.unlink()
    return Answer()


def main(arguments: list[str]) -> int:
    """VERB, then the settings of TLS as JSON, then the name of the thing; the certificate comes on standard input."""
    verb, text, name = arguments
    settings = msgspec.json.decode(text, type=TlsSettings, dec_hook=lambda kind, value: kind(value))
    files = CertificateFiles(settings.certificate_file, settings.private_key_file)
    try:
        if verb == REQUEST:
            answer = _request(files, settings, name)
        elif verb == INSTALL:
            answer = _install(files, settings, sys.stdin.buffer.read(_MAX_PEM).decode("ascii", "replace"))
        else:
            files.restore()
            answer = Answer()
    except OSError as error:
        answer = Answer(error=f"{error.filename}: {error.strerror}: the service must be able to write there")
    except ValueError:
        answer = Answer(error="is no certificate in PEM form")
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

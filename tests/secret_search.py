"""Looking for keys where none may be: in everything the program prints, logs, sends and stores."""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

_KEYS = (
    "app_key",
    "nwk_key",
    "app_s_key",
    "nwk_s_key",
    "f_nwk_s_int_key",
    "s_nwk_s_int_key",
    "nwk_s_enc_key",
    "mc_key",
    "mc_app_s_key",
    "mc_nwk_s_key",
)


def assert_no_secret(places: Mapping[str, bytes], secrets: Iterable[bytes]) -> None:
    """Fails, naming the place and the form but not the key, when a secret stands anywhere in any usual writing."""
    writings = [(number, form, text) for number, secret in enumerate(secrets) for form, text in forms(secret)]
    assert writings, "no secrets to look for"
    found = [
        f"{place}: key {number} as {form}"
        for place, content in places.items()
        for folded in [content.lower()]
        for number, form, text in writings
        if text in (folded if form in _CASELESS else content)
    ]
    assert not found, found[:20]


_CASELESS = frozenset({"hex", "hex, reversed", "escapes"})


def forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """The ways in which a secret could be written down."""
    yield "raw bytes", secret
    yield "raw bytes, reversed", secret[::-1]
    yield "hex", secret.hex().encode()
    yield "hex, reversed", secret[::-1].hex().encode()
    yield "escapes", "".join(f"\\x{byte:02x}" for byte in secret).encode()
    yield "repr", repr(secret)[2:-1].encode()
    yield "list", ", ".join(str(byte) for byte in secret).encode()
    yield "list without spaces", ",".join(str(byte) for byte in secret).encode()
    yield "number", str(int.from_bytes(secret, "big")).encode()
    for shift in range(3):  # where in a group of three bytes the secret begins
        start = -shift % 3
        middle = secret[start : start + (len(secret) - start) // 3 * 3]
        yield f"base64, shifted by {shift}", base64.b64encode(middle)
        yield f"URL-safe base64, shifted by {shift}", base64.urlsafe_b64encode(middle)


def device_keys(device_file: str) -> list[bytes]:
    """Every key of a device file, read without the program's loader."""
    tables = [table for kind in tomllib.loads(device_file).values() for table in kind]
    return [bytes.fromhex(table[name]) for table in tables for name in _KEYS if name in table]


def private_number(key_file: Path) -> bytes:
    """What is secret in the file of a private key on P-256."""
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(32, "big")

"""Keys that are no secret, and how a key is named without being told."""

from __future__ import annotations

import hashlib
import itertools

from lorabridge.lorawan.types import AES128Key

_PUBLISHED = {
    "2b7e151628aed2a6abf7158809cf4f3c": "the example key of FIPS 197 and RFC 4493, and of many device software samples",
    "00112233445566778899aabbccddeeff": "the example block of FIPS 197",
    "01020304050607080102030405060708": "an example of The Things Stack documentation",
    "0123456789abcdef0123456789abcdef": "an example of The Things Stack API",
    "fedcba9876543210fedcba9876543210": "an example key that counts down",
    "15b1d0efa463dfbe3d11181e1ec7da85": "the NwkSKey of the Heltec sample sketches",
    "d72c78758cdccabf55ee4a778d16ef67": "the AppSKey of the Heltec sample sketches",
}
"""Keys out of documents and sample code, and where they stand."""
_BY_SECRET = {bytes.fromhex(key): source for key, source in _PUBLISHED.items()}

_LABEL = b"lorabridge key fingerprint\0"


def weakness(key: AES128Key) -> str | None:
    """Why anybody could guess this key, or None."""
    secret = key.reveal()
    if not any(secret):
        return "is all zeros"
    if len(set(secret)) == 1:
        return "is one byte sixteen times"
    if secret in _BY_SECRET:
        return f"is public: {_BY_SECRET[secret]}"
    if len({(b - a) & 0xFF for a, b in itertools.pairwise(secret)}) == 1:
        return "counts up or down in equal steps: an example, not a secret"
    return None


def fingerprint(key: AES128Key) -> str:
    """Eight hex digits by which two people can see that they mean the same key. One way; not for storing."""
    return hashlib.sha256(_LABEL + key.reveal()).hexdigest()[:8]

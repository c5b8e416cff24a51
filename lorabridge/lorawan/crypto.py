"""The cryptography of LoRaWAN on pycryptodome: MICs, keystreams, join-accept, key derivation.

A `PreparedKey` keeps the cipher objects of one key: pycryptodome spends ten times longer on making a
CMAC object than on the two or three AES blocks of a frame. It is not thread-safe. This file is the only
one that would change if another AES were put in.
"""

from __future__ import annotations

import hmac
import struct

import msgspec
from Crypto.Cipher import AES

from lorabridge.lorawan.device import SessionKeys
from lorabridge.lorawan.frame import JoinAccept, JoinAcceptBody, parse_join_accept_body
from lorabridge.lorawan.grammar import MIC_SIZE
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DevNonce, Direction, FCnt32, JoinNonce, NetID

BLOCK = 16
_BLOCK_MASK = (1 << 128) - 1
_CMAC_POLYNOMIAL = 0x87
"""R_128 of RFC 4493 §2.3."""

_A_HEAD = struct.Struct("<B4xBIIx")
"""A_i without i: 01 | 4 x 00 | Dir | DevAddr | FCnt | 00 (TS001-1.0.4 §4.3.3.1)."""
_A_NUMBERS = tuple(tuple(bytes([i][:i]) for i in range(count + 1)) for count in range(17))
"""For a count of blocks, what the head stands between to make them: nothing, 1, 2 …; a PHYPayload holds 16 at most."""
_FOPTS_BLOCK = struct.Struct("<B3xBBIIxB")
"""A for FOpts: 01 | 3 x 00 | 01 or 02 | Dir | DevAddr | FCnt | 00 | 01 (TS001-1.1 errata "FOpts encryption")."""
_B_BLOCK = struct.Struct("<BHBBBIIxB")
"""B_0 and B_1: 49 | ConfFCnt | TxDr | TxCh | Dir | DevAddr | FCnt | 00 | len (TS001-1.1 §4.4)."""


class PreparedKey:
    """One AES-128 key, ready for use."""

    __slots__ = ("_cbc", "_chained", "_ecb", "_k1", "_k2")

    def __init__(self, key: AES128Key) -> None:
        secret = key.reveal()
        self._ecb = AES.new(secret, AES.MODE_ECB)
        self._cbc = AES.new(secret, AES.MODE_CBC, iv=bytes(BLOCK))
        self._chained = 0
        """The last ciphertext block: pycryptodome chains calls, so it is cancelled out of the next one."""
        l_block = int.from_bytes(self._ecb.encrypt(bytes(BLOCK)), "big")
        k1 = _double(l_block)
        self._k1 = int.from_bytes(k1.to_bytes(BLOCK, "big"), "little")
        self._k2 = int.from_bytes(_double(k1).to_bytes(BLOCK, "big"), "little")

    def cmac(self, message: bytes) -> bytes:
        """AES-CMAC of a message, 16 bytes (RFC 4493): one CBC call over the padded message."""
        size = len(message)
        last = (size - 1) // BLOCK * BLOCK if size else 0  # where the last block begins
        padded = last + BLOCK
        mixed = int.from_bytes(message, "little") ^ self._chained
        mixed ^= self._k1 << 8 * last if size == padded else self._k2 << 8 * last ^ 0x80 << 8 * size
        encrypted = bytearray(padded)
        self._cbc.encrypt(mixed.to_bytes(padded, "little"), output=encrypted)
        tag = encrypted[last:]
        self._chained = int.from_bytes(tag, "little")
        return bytes(tag)

    def encrypt_blocks(self, blocks: bytes) -> bytes:
        """AES in ECB mode over whole blocks."""
        return bytes(self._encrypt(blocks))

    def xor_stream(self, blocks: bytes, data: bytes) -> bytes:
        """`data` XOR the encrypted blocks, as far as data goes."""
        size = len(data)
        stream = int.from_bytes(self._encrypt(blocks)[:size], "little")
        return (int.from_bytes(data, "little") ^ stream).to_bytes(size, "little")

    def _encrypt(self, blocks: bytes) -> bytearray:
        encrypted = bytearray(len(blocks))  # pycryptodome takes a third longer to make room by itself
        self._ecb.encrypt(blocks, output=encrypted)
        return encrypted

    def decrypt_blocks(self, blocks: bytes) -> bytes:
        """The inverse of `encrypt_blocks`."""
        decrypted: bytes = self._ecb.decrypt(blocks)
        return decrypted


def _double(block: int) -> int:
    """Multiplication by x in GF(2^128) (RFC 4493 §2.3)."""
    doubled = block << 1
    return doubled & _BLOCK_MASK ^ _CMAC_POLYNOMIAL if doubled >> 128 else doubled


class MicContext(msgspec.Struct, frozen=True):
    """What enters the MIC of 1.1 beside the frame (TS001-1.1 §4.4)."""

    conf_fcnt: int = 0
    """FCnt of the confirmed frame that this one acknowledges, 16 bits; 0 when it acknowledges none."""
    tx_dr: int = 0
    """Data rate of the uplink."""
    tx_ch: int = 0
    """Channel index of the uplink."""


class SessionCrypto:
    """The prepared keys of one session."""

    __slots__ = ("_app_s_key", "_f_nwk", "_nwk_enc", "_s_nwk")

    def __init__(self, keys: SessionKeys) -> None:
        self._f_nwk = PreparedKey(keys.f_nwk_s_int_key)
        one_key = keys.s_nwk_s_int_key == keys.f_nwk_s_int_key
        self._s_nwk = self._f_nwk if one_key else PreparedKey(keys.s_nwk_s_int_key)
        self._nwk_enc = self._f_nwk if keys.nwk_s_enc_key == keys.f_nwk_s_int_key else PreparedKey(keys.nwk_s_enc_key)
        self._app_s_key = None if keys.app_s_key is None else PreparedKey(keys.app_s_key)

    @property
    def sealed(self) -> bool:
        """Whether application payloads stay encrypted here."""
        return self._app_s_key is None

    def network_key_check(self, label: bytes) -> bytes:
        """Sixteen bytes that identify the network keys without revealing them: a CMAC chain over `label`."""
        return self._f_nwk.cmac(self._s_nwk.cmac(self._nwk_enc.cmac(label)))

    def mic_1_0(self, message: bytes, direction: Direction, dev_addr: DevAddr, fcnt32: FCnt32) -> bytes:
        """MIC of a data frame of 1.0 under NwkSKey (TS001-1.0.4 §4.4): four bytes."""
        return data_mic(self._f_nwk, message, direction, dev_addr, fcnt32)

    def mic_up_1_1_f(self, message: bytes, dev_addr: DevAddr, fcnt32: FCnt32) -> bytes:
        """cmacF[0..1]: the half of an uplink MIC of 1.1 that a forwarding network can verify."""
        return data_mic(self._f_nwk, message, Direction.UP, dev_addr, fcnt32)[:2]

    def mic_up_1_1_s(self, message: bytes, dev_addr: DevAddr, fcnt32: FCnt32, context: MicContext) -> bytes:
        """cmacS[0..1]: the half that binds data rate, channel and acknowledged counter."""
        return data_mic(self._s_nwk, message, Direction.UP, dev_addr, fcnt32, context)[:2]

    def mic_up_1_1(self, message: bytes, dev_addr: DevAddr, fcnt32: FCnt32, context: MicContext) -> bytes:
        """MIC of an uplink of 1.1: cmacS[0..1] | cmacF[0..1] (TS001-1.1 §4.4)."""
        return self.mic_up_1_1_s(message, dev_addr, fcnt32, context) + self.mic_up_1_1_f(message, dev_addr, fcnt32)

    def mic_down_1_1(self, message: bytes, dev_addr: DevAddr, fcnt32: FCnt32, conf_fcnt: int) -> bytes:
        """MIC of a downlink of 1.1 under SNwkSIntKey; `conf_fcnt` is 0 unless the frame acknowledges."""
        context = MicContext(conf_fcnt=conf_fcnt)
        return data_mic(self._s_nwk, message, Direction.DOWN, dev_addr, fcnt32, context)

    def frm_payload(
        self, data: bytes, f_port: int | None, direction: Direction, dev_addr: DevAddr, fcnt32: FCnt32
    ) -> bytes | None:
        """Encrypt or decrypt an FRMPayload: NwkSEncKey for FPort 0, else AppSKey; None without that key."""
        key = self._nwk_enc if f_port == 0 else self._app_s_key
        return None if key is None else crypt_frm_payload(key, data, direction, dev_addr, fcnt32)

    def f_opts_1_1(
        self, data: bytes, direction: Direction, dev_addr: DevAddr, fcnt32: FCnt32, *, a_fcnt_down: bool
    ) -> bytes:
        """Encrypt or decrypt the FOpts of 1.1; `a_fcnt_down`: the counter is AFCntDown."""
        return crypt_f_opts(self._nwk_enc, data, direction, dev_addr, fcnt32, a_fcnt_down=a_fcnt_down)


def data_mic(
    key: PreparedKey,
    message: bytes,
    direction: Direction,
    dev_addr: DevAddr,
    fcnt32: FCnt32,
    context: MicContext | None = None,
) -> bytes:
    """CMAC over B_0 (or B_1 with a context) and the message, cut to four bytes."""
    if context is None:
        block = _B_BLOCK.pack(0x49, 0, 0, 0, direction, dev_addr, fcnt32, len(message))
    else:
        block = _B_BLOCK.pack(
            0x49, context.conf_fcnt, context.tx_dr, context.tx_ch, direction, dev_addr, fcnt32, len(message)
        )
    return key.cmac(block + message)[:MIC_SIZE]


def crypt_frm_payload(key: PreparedKey, data: bytes, direction: Direction, dev_addr: DevAddr, fcnt32: FCnt32) -> bytes:
    """XOR with the keystream of A_1, A_2 …: encryption and decryption are the same (TS001-1.0.4 §4.3.3)."""
    size = len(data)
    if not size:
        return b""
    head = _A_HEAD.pack(0x01, direction, dev_addr, fcnt32)
    return key.xor_stream(head.join(_A_NUMBERS[(size + BLOCK - 1) // BLOCK]), data)


def crypt_f_opts(
    key: PreparedKey, data: bytes, direction: Direction, dev_addr: DevAddr, fcnt32: FCnt32, *, a_fcnt_down: bool
) -> bytes:
    """XOR with the one block of the FOpts keystream (TS001-1.1 §4.3.1.6 with its errata)."""
    counter = 0x02 if a_fcnt_down else 0x01
    return key.xor_stream(_FOPTS_BLOCK.pack(0x01, counter, direction, dev_addr, fcnt32, 0x01), data)


def join_mic(key: PreparedKey, message: bytes) -> bytes:
    """MIC of a join-request under AppKey or NwkKey, or of a rejoin-request under SNwkSIntKey or JSIntKey."""
    return key.cmac(message)[:MIC_SIZE]


def decrypt_join_accept(key: PreparedKey, frame: JoinAccept) -> JoinAcceptBody:
    """Open a join-accept with AppKey, NwkKey or JSEncKey: the server *decrypts* to send, so that a device needs
    encryption only (§6.2.6). The MIC is in the result, not verified.
    """
    return parse_join_accept_body(frame.mhdr, key.encrypt_blocks(frame.encrypted))


def encrypt_join_accept(key: PreparedKey, plain: bytes) -> bytes:
    """The inverse: what travels after MHDR."""
    return key.decrypt_blocks(plain)


def join_accept_mic(key: PreparedKey, body: JoinAcceptBody) -> bytes:
    """MIC of a join-accept of 1.0, under AppKey (or NwkKey without OptNeg)."""
    return key.cmac(body.message)[:MIC_SIZE]


def join_accept_mic_1_1(
    js_int_key: PreparedKey, body: JoinAcceptBody, join_req_type: int, join_eui: EUI64, dev_nonce: int
) -> bytes:
    """MIC of a join-accept with OptNeg (TS001-1.1 §6.2.3): JoinReqType | JoinEUI | DevNonce before the message.

    `join_req_type` is 0xFF after a join-request, else the rejoin type, whose RJcount stands for `dev_nonce`.
    """
    head = bytes([join_req_type]) + join_eui.to_wire() + dev_nonce.to_bytes(2, "little")
    return js_int_key.cmac(head + body.message)[:MIC_SIZE]


def _derive(key: PreparedKey, kind: int, *parts: bytes) -> AES128Key:
    """aes128_encrypt(key, kind | parts | zeros): every key of the specification is made so."""
    return AES128Key(key.encrypt_blocks((bytes([kind]) + b"".join(parts)).ljust(BLOCK, b"\0")))


def derive_session_keys_1_0(
    app_key: AES128Key, join_nonce: JoinNonce, net_id: NetID, dev_nonce: DevNonce
) -> SessionKeys:
    """NwkSKey and AppSKey of a join of 1.0 (TS001-1.0.4 §6.2.6)."""
    root, tail = PreparedKey(app_key), (join_nonce.to_wire(), net_id.to_wire(), dev_nonce.to_wire())
    nwk_s_key = _derive(root, 0x01, *tail)
    return SessionKeys(
        f_nwk_s_int_key=nwk_s_key,
        s_nwk_s_int_key=nwk_s_key,
        nwk_s_enc_key=nwk_s_key,
        app_s_key=_derive(root, 0x02, *tail),
    )


def derive_session_keys_1_1(
    nwk_key: AES128Key, app_key: AES128Key | None, join_nonce: JoinNonce, join_eui: EUI64, dev_nonce: DevNonce
) -> SessionKeys:
    """The four session keys of a join with OptNeg (TS001-1.1 §6.2.5); without AppKey there is no AppSKey."""
    root, tail = PreparedKey(nwk_key), (join_nonce.to_wire(), join_eui.to_wire(), dev_nonce.to_wire())
    return SessionKeys(
        f_nwk_s_int_key=_derive(root, 0x01, *tail),
        s_nwk_s_int_key=_derive(root, 0x03, *tail),
        nwk_s_enc_key=_derive(root, 0x04, *tail),
        app_s_key=None if app_key is None else _derive(PreparedKey(app_key), 0x02, *tail),
    )


def derive_js_int_key(nwk_key: AES128Key, dev_eui: EUI64) -> AES128Key:
    """JSIntKey, which signs rejoin-request 1 and join-accepts (TS001-1.1 §6.1.1.3)."""
    return _derive(PreparedKey(nwk_key), 0x06, dev_eui.to_wire())


def derive_js_enc_key(nwk_key: AES128Key, dev_eui: EUI64) -> AES128Key:
    """JSEncKey, which encrypts join-accepts to rejoin-requests (TS001-1.1 §6.1.1.3)."""
    return _derive(PreparedKey(nwk_key), 0x05, dev_eui.to_wire())


def mic_equal(expected: bytes, received: bytes) -> bool:
    """Whether two MICs, or halves of them, are the same, in constant time."""
    return hmac.compare_digest(expected, received)

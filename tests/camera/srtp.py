"""SRTP as cameras send it (RFC 3711, AES_CM_128_HMAC_SHA1_80): RTP packets whose payload is encrypted."""

import base64
import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_MASTER_KEY, _MASTER_SALT = bytes(range(16)), bytes(range(100, 114))
_HEADER_BYTES = 12
_TAG_BYTES = 10
KEY_LINE = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(_MASTER_KEY + _MASTER_SALT).decode()}"
"""Of the description (RFC 4568)."""


def protected(packet: bytes) -> bytes:
    """An RTP packet without extension, whose sequence number has not begun anew yet."""
    head, payload = packet[:_HEADER_BYTES], packet[_HEADER_BYTES:]
    nonce = int.from_bytes(_SALT) << 16 ^ int.from_bytes(head[8:12]) << 64 ^ int.from_bytes(head[2:4]) << 16
    sealed = head + _counted(_KEY, nonce, payload)
    return sealed + hmac.digest(_AUTHENTICATION_KEY, sealed + bytes(4), "sha1")[:_TAG_BYTES]


def _counted(key: bytes, nonce: int, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CTR(nonce.to_bytes(16))).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def _derived(label: int, size: int) -> bytes:
    """RFC 3711 section 4.3.1."""
    return _counted(_MASTER_KEY, (int.from_bytes(_MASTER_SALT) ^ label << 48) << 16, bytes(size))


_KEY, _AUTHENTICATION_KEY, _SALT = _derived(0, 16), _derived(1, 20), _derived(2, 14)

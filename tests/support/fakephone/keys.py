"""Keys of adb clients: Android's form of an RSA public key, and what a phone checks before it lets one in."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1

from tests.support.fakephone.packets import ProtocolViolation

TOKEN_BYTES = 20
_MODULUS_BYTES = 256
# libcrypto_utils/android_pubkey.c: size in words, n0inv, modulus, R^2 (both little-endian), exponent.
_LAYOUT = struct.Struct(f"<II{_MODULUS_BYTES}s{_MODULUS_BYTES}sI")


@dataclass(frozen=True)
class PublicKey:
    """A client's key as its AUTH RSAPUBLICKEY message carries it."""

    modulus: int
    exponent: int

    @classmethod
    def parse(cls, data: bytes) -> PublicKey:
        """From base64, a space and the owner's name, ended by NUL. Raises ProtocolViolation."""
        try:
            words, n0inv, modulus, _, exponent = _LAYOUT.unpack(
                base64.b64decode(data.rstrip(b"\0").split(b" ")[0], validate=True)
            )
        except (binascii.Error, struct.error) as error:
            raise ProtocolViolation(f"no Android public key: {error}") from None
        key = cls(int.from_bytes(modulus, "little"), exponent)
        if words != _MODULUS_BYTES // 4 or (key.modulus * n0inv + 1) & 0xFFFFFFFF:
            raise ProtocolViolation("Android public key has a wrong length or n0inv")
        return key

    def signed(self, token: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's (PKCS#1 v1.5) of `token`, which stands for a SHA-1 digest."""
        public = RSAPublicNumbers(self.exponent, self.modulus).public_key()
        try:
            public.verify(signature, token, PKCS1v15(), Prehashed(SHA1()))
        except InvalidSignature:
            return False
        return True

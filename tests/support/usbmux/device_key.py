"""The key by which fake phones are known; making one takes a while, and none of it is secret."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@cache
def device_key() -> rsa.RSAPrivateKey:
    """The pair, made once a process."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_key_pem() -> bytes:
    """As TLS takes it."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return device_key().private_bytes(encoding, form, serialization.NoEncryption())


def public_key_pem() -> bytes:
    """As lockdownd tells it."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
    return device_key().public_key().public_bytes(encoding, form)

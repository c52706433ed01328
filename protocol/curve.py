"""Curve25519 as Signal uses it: key pairs (X25519) and signatures made with them (XEdDSA). Each check raises.

A signature is verified with the Edwards form of the public key: ``y = (u - 1) / (u + 1)``, its sign carried in the top bit of
the signature. Sources: RFC 7748; Signal's "The XEdDSA and VXEdDSA Signature Schemes"; libsignal-node ``src/curve.js``. Baileys'
own ``Curve.verify`` does not look at libsignal's answer and so accepts any 64 bytes; this is what it meant to do.
"""

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.errors import BadKeyPair, BadSignature, BadValue

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
TYPE_BYTE: Final = 5
"""What libsignal writes before a public key."""

_PRIME: Final = 2**255 - 19
_SIGN: Final = 0x80
# The u of points of small order (RFC 7748, section 6.1, and the twist): under such a key anybody can sign.
_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


def bare(public: bytes, pointer: str = "") -> bytes:
    """The 32 bytes of a public key, with or without libsignal's type byte. BadValue for anything else."""
    if len(public) == KEY_BYTES + 1 and public[0] == TYPE_BYTE:
        return public[1:]
    if len(public) != KEY_BYTES:
        raise BadValue(f"a public key has {KEY_BYTES} bytes, this one has {len(public)}", pointer)
    return public


def prefixed(public: bytes) -> bytes:
    """A public key as libsignal writes and signs it: 33 bytes."""
    return bytes((TYPE_BYTE,)) + bare(public)


def public_of(private: bytes) -> bytes:
    """The public key (32 bytes) of a private one. BadValue unless it has 32 bytes."""
    if len(private) != KEY_BYTES:
        raise BadValue(f"a private key has {KEY_BYTES} bytes, this one has {len(private)}")
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def check_pair(private: bytes, public: bytes) -> None:
    """BadKeyPair unless ``public`` is the private key's; BadValue when one of them has not the length of a key."""
    if public_of(private) != bare(public):
        raise BadKeyPair("the public key is not the private key's")


def is_clamped(private: bytes) -> bool:
    """Whether the five bits that X25519 ignores stand as every generator leaves them."""
    return private[0] & 7 == 0 and private[-1] & 0xC0 == 0x40  # noqa: PLR2004 - RFC 7748, section 5


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """BadSignature unless ``signature`` (64 bytes) is of this message under this key (32 bytes, or 33 with its type)."""
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"a signature has {SIGNATURE_BYTES} bytes, this one has {len(signature)}")
    edwards = bytearray(_edwards(bare(public)))
    edwards[-1] |= signature[-1] & _SIGN
    unsigned = signature[:-1] + bytes((signature[-1] & ~_SIGN,))
    try:
        Ed25519PublicKey.from_public_bytes(bytes(edwards)).verify(unsigned, message)
    except (InvalidSignature, ValueError):
        raise BadSignature("the signature is not of this message under this key") from None


def _edwards(public: bytes) -> bytes:
    u = int.from_bytes(public, "little")
    if u >= _PRIME or u in _SMALL_ORDER:
        raise BadSignature("no signature counts under this key")
    y = (u - 1) * pow(u + 1, -1, _PRIME) % _PRIME
    return y.to_bytes(KEY_BYTES, "little")

"""LTHash: the sum over an app-state collection by which WhatsApp tells that nothing is missing or added.

``hash = sum of HKDF-SHA256(valueMac, 128 bytes, info "WhatsApp Patch Integrity")`` over its entries, added as 64 little-endian
16-bit numbers, each modulo 2^16. Source: Baileys ``Utils/lt-hash.ts``.
"""

import hmac
from collections.abc import Iterable
from typing import Final

HASH_BYTES: Final = 128

_INFO: Final = b"WhatsApp Patch Integrity"
_NO_SALT: Final = bytes(32)
_BLOCKS: Final = range(1, HASH_BYTES // 32 + 1)
# Every second lane, with room above each: additions go to whole numbers, carries are cut off at the end.
_LANES: Final = int.from_bytes(b"\xff\xff\x00\x00" * (HASH_BYTES // 4), "little")
_BEFORE_OVERFLOW: Final = 0xFFFF


def lthash(value_macs: Iterable[bytes]) -> bytes:
    """The hash (128 bytes) of a collection with these value MACs, in any order."""
    even = odd = 0
    for count, mac in enumerate(value_macs, 1):
        number = int.from_bytes(_expand(mac), "little")
        even += number & _LANES
        odd += number >> 16 & _LANES
        if count % _BEFORE_OVERFLOW == 0:
            even &= _LANES
            odd &= _LANES
    return (even & _LANES | (odd & _LANES) << 16).to_bytes(HASH_BYTES, "little")


def _expand(mac: bytes) -> bytes:
    key = hmac.digest(_NO_SALT, mac, "sha256")
    out = block = b""
    for number in _BLOCKS:
        block = hmac.digest(key, block + _INFO + bytes((number,)), "sha256")
        out += block
    return out

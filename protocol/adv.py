"""ADV: how the phone vouches for a companion device, and the companion for itself.

Both sign ``details`` (a protobuf ``ADVDeviceIdentity``) with the companion's identity key. Source: Baileys
``validate-connection.ts`` (``configureSuccessfulPairing``) and ``Defaults`` (the prefixes). The HMAC over the whole with
``advSecretKey`` is not stored and cannot be checked afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.buffer_json import to_bytes
from protocol.curve import bare, verify
from protocol.errors import BadSignature, BadValue

_ACCOUNT: Final = b"\x06\x00"
_DEVICE: Final = b"\x06\x01"
_HOSTED_ACCOUNT: Final = b"\x06\x05"
_HOSTED_DEVICE: Final = b"\x06\x06"

_DEVICE_TYPE: Final = 5  # its field number
_HOSTED: Final = 1  # ADVEncryptionType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_MOST: Final = 10


@dataclass(frozen=True, slots=True)
class Account:
    """``creds.account``; ``key`` is the account's public identity key, 32 bytes."""

    details: bytes = field(repr=False)
    key: bytes = field(repr=False)
    account_signature: bytes = field(repr=False)
    device_signature: bytes = field(repr=False)
    hosted: bool = False


def parse_account(value: Any) -> Account:
    """The account of creds in any spelling. BadValue with a pointer when it cannot be one."""
    if not isinstance(value, dict):
        raise BadValue("an account is an object", "/account")
    details, key, account, device = (
        to_bytes(value.get(name), f"/account/{name}")
        for name in ("details", "accountSignatureKey", "accountSignature", "deviceSignature")
    )
    return Account(details, bare(key, "/account/accountSignatureKey"), account, device, is_hosted(details))


def is_hosted(details: bytes) -> bool:
    """Whether the device is hosted by Meta (``deviceType`` HOSTED). BadValue when the details are no protobuf."""
    return any(number == _DEVICE_TYPE and value == _HOSTED for number, value in _varints(details))


def check_account(account: Account, identity: bytes) -> None:
    """BadSignature unless the account's key signed this companion's identity key (32 bytes)."""
    prefix = _HOSTED_ACCOUNT if account.hosted else _ACCOUNT
    verify(account.key, prefix + account.details + identity, account.account_signature)


def check_device(account: Account, identity: bytes) -> None:
    """BadSignature unless the companion signed the account with its identity key (32 bytes).

    Baileys signs with the same prefix for hosted devices; WhatsApp has one of their own, which counts too.
    """
    body = account.details + identity + account.key
    try:
        verify(identity, _DEVICE + body, account.device_signature)
    except BadSignature:
        if not account.hosted:
            raise
        verify(identity, _HOSTED_DEVICE + body, account.device_signature)


def _varints(message: bytes) -> Iterator[tuple[int, int]]:
    """``(field number, value)`` of the varint fields; the rest is skipped."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif kind == _BYTES:
            length, at = _varint(message, at)
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise BadValue("not a protobuf message", "/account/details")
    if at > len(message):
        raise BadValue("a protobuf message cut off", "/account/details")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_MOST, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
    raise BadValue("a protobuf message cut off", "/account/details")

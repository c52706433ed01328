"""Creds: identity, signatures, counters.

Signatures are verified under the public key as stored or, where that is damaged and its private half is not, as it must be:
a damaged public key is told once, not once more by everything it signed.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from protocol.adv import Account, check_account, check_device, parse_account
from protocol.buffer_json import to_bytes
from protocol.checks.context import Context
from protocol.curve import KEY_BYTES, bare, check_pair, is_clamped, prefixed, public_of, verify
from protocol.errors import BadKeyPair, BadSignature, BadValue
from protocol.pre_key import MOST_ID
from protocol.records import key_pair
from protocol.rules import CREDS, Finding

_ADDRESS: Final = re.compile(r"[0-9A-Za-z]+(?:[._][0-9]+)?(?::[0-9]{1,8})?@[a-z.]+")
_PAIRS: Final = ("noiseKey", "pairingEphemeralKeyPair", "signedIdentityKey")
_AS_IT_STANDS: Final = "/noiseKey"  # sent in the handshake without a look at its type byte
_REGISTRATION_MAX: Final = 16383  # 14 bits
_COUNTER_MAX: Final = 2**53 - 1  # what JavaScript counts exactly


def check_creds(creds: dict[str, Any], context: Context) -> Iterator[Finding]:
    """Judges creds and puts what rows are judged by into the context."""
    _remember(creds, context)
    for name in _PAIRS:
        yield from _pair(creds.get(name), f"/{name}")
    signed = creds.get("signedPreKey")
    yield from _pair(signed.get("keyPair") if isinstance(signed, dict) else None, "/signedPreKey/keyPair")
    identities = _candidates(creds.get("signedIdentityKey"))
    yield from _signed_pre_key(signed, identities)
    yield from _numbers(creds, signed)
    yield from _adv_secret(creds.get("advSecretKey"))
    yield from _routing(creds.get("routingInfo"))
    if creds.get("account") is not None:
        yield from _account(creds, identities)
    yield from _me(creds, context)


def check_paired(context: Context) -> Iterator[Finding]:
    """Keys that only a paired device has, and creds of one that is not."""
    if context.paired is False and context.has_paired_keys:
        yield Finding("account-missing", CREDS)


def whole(value: Any) -> int | None:
    """A whole number from 0 that JavaScript counts exactly, None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _COUNTER_MAX else None


def _on_the_wire(value: Any) -> int | None:
    found = whole(value)
    return None if found is None or found > MOST_ID else found


def _remember(creds: dict[str, Any], context: Context) -> None:
    context.has_creds = True
    context.next_pre_key = _on_the_wire(creds.get("nextPreKeyId"))
    context.first_unuploaded = _on_the_wire(creds.get("firstUnuploadedPreKeyId"))
    key_id = creds.get("myAppStateKeyId")
    context.my_app_state_key = key_id if isinstance(key_id, str) and key_id else None
    context.paired = creds.get("account") is not None
    me = creds.get("me")
    if not isinstance(me, dict) or (address := _user_and_device(me.get("id"))) is None:
        return  # what is one's own cannot be told then
    lid = _user_and_device(me.get("lid"))
    context.me = frozenset(user for user, _ in filter(None, (address, lid)))
    context.device = address[1]


def _user_and_device(jid: Any) -> tuple[str, int] | None:
    """The parts of an address; None for what is none."""
    if not isinstance(jid, str) or not _ADDRESS.fullmatch(jid):
        return None
    user, _, device = jid.partition("@")[0].partition(":")
    return user.partition("_")[0].partition(".")[0], int(device or 0)


def _me(creds: dict[str, Any], context: Context) -> Iterator[Finding]:
    me = creds.get("me")
    if isinstance(me, dict) and me.get("id") is not None and not context.me:
        yield Finding("me-id", CREDS)
    elif creds.get("account") is not None and not context.me:
        yield Finding("me-missing", CREDS)


def _routing(value: Any) -> Iterator[Finding]:
    if not value and not isinstance(value, dict | list):
        return  # Baileys goes without
    if isinstance(value, str):
        yield Finding("routing-info", CREDS, detail="text, which is not revived as bytes")
        return
    try:
        to_bytes(value)
    except BadValue as error:
        yield Finding("routing-info", CREDS, detail=str(error))


def _pair(value: Any, pointer: str) -> Iterator[Finding]:
    try:
        private, public = key_pair(value, pointer)
        check_pair(private, public)
    except BadKeyPair:
        yield Finding("creds-key-pair", CREDS, detail=pointer)
    except BadValue as error:
        yield Finding("creds-key-pair", CREDS, detail=f"{pointer}: {error}")
    else:
        if pointer == _AS_IT_STANDS and len(public) != KEY_BYTES:
            yield Finding("creds-key-pair", CREDS, detail=f"{pointer}/public: {len(public)} bytes, and not {KEY_BYTES}")
        if not is_clamped(private):
            yield Finding("key-unclamped", CREDS, detail=pointer)


def _candidates(pair: Any) -> list[bytes]:
    """The public key as stored, and as its private half makes it where the two differ; those that can be read."""
    found: list[bytes] = []
    try:
        private, public = key_pair(pair)
    except BadValue:
        return found
    for read, key in ((bare, public), (public_of, private)):
        try:
            candidate = read(key)
        except BadValue:
            continue
        if candidate not in found:
            found.append(candidate)
    return found


def _signed_pre_key(signed: Any, identities: list[bytes]) -> Iterator[Finding]:
    if not isinstance(signed, dict):
        return  # told by its key pair
    keys = _candidates(signed.get("keyPair"))
    try:
        signature = to_bytes(signed.get("signature"), "/signedPreKey/signature")
    except BadValue as error:
        yield Finding("signed-pre-key-signature", CREDS, detail=str(error))
        return
    if identities and keys and not any(_verifies(i, prefixed(key), signature) for i in identities for key in keys):
        yield Finding("signed-pre-key-signature", CREDS)


def _verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify(public, message, signature)
    except BadSignature:
        return False
    return True


def _numbers(creds: dict[str, Any], signed: Any) -> Iterator[Finding]:
    registration = whole(creds.get("registrationId"))
    if registration is None or registration > _REGISTRATION_MAX:
        yield Finding("registration-id", CREDS)
    ids = {f"/{name}": whole(creds.get(name)) for name in ("nextPreKeyId", "firstUnuploadedPreKeyId")}
    if isinstance(signed, dict):
        ids["/signedPreKey/keyId"] = whole(signed.get("keyId"))
    counters = dict(ids)
    if creds.get("accountSyncCounter") is not None:
        counters["/accountSyncCounter"] = whole(creds["accountSyncCounter"])
    for pointer, value in counters.items():
        if value is None:
            yield Finding("counter", CREDS, detail=pointer)
        elif pointer in ids and value > MOST_ID:
            yield Finding("counter-range", CREDS, detail=pointer)


def _adv_secret(value: Any) -> Iterator[Finding]:
    try:
        secret = to_bytes(value) if isinstance(value, str) else b""
    except BadValue:
        secret = b""
    if len(secret) != KEY_BYTES:
        yield Finding("adv-secret", CREDS, detail=f"{len(secret)} bytes")


def _account(creds: dict[str, Any], identities: list[bytes]) -> Iterator[Finding]:
    try:
        account = parse_account(creds["account"])
    except BadValue as error:
        yield Finding("account-unreadable", CREDS, detail=f"{error.pointer}: {error}")
        return
    vouched = [identity for identity in identities if _is_vouched(account, identity)]
    if not identities:
        return  # told by the identity's key pair
    if not vouched:
        yield Finding("account-signature", CREDS)
        return
    try:
        check_device(account, vouched[0])
    except BadSignature:
        yield Finding("device-signature", CREDS)
    if not _knows(creds.get("signalIdentities"), account.key):
        yield Finding("signal-identity", CREDS)


def _is_vouched(account: Account, identity: bytes) -> bool:
    try:
        check_account(account, identity)
    except BadSignature:
        return False
    return True


def _knows(identities: Any, key: bytes) -> bool:
    if not isinstance(identities, list):
        return False
    for each in identities:
        try:
            if isinstance(each, dict) and to_bytes(each.get("identifierKey")) == prefixed(key):
                return True
        except BadValue:
            continue
    return False

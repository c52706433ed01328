"""The grammar of names. Anything outside it is refused, never cleaned up: two names that clean up alike collide.

Sources: the service's contract ("Words"); Baileys' ids measured up to 45 characters of ``[0-9A-Za-z@._:/+=-]``, but
ids and types are opaque to us: releases add types, forks add their own.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from protocol.errors import BadName

SESSION_NAME_MAX: Final = 128
TENANT_MAX: Final = 64
TYPE_MAX: Final = 64
ID_MAX_BYTES: Final = 512

PRE_KEY: Final = "pre-key"

_NAMESPACE = UUID("8b1f5c0e-6a35-5d0a-9a44-0f6a3c1d2e77")

_NUL: Final = "holds no NUL character"
_UNICODE: Final = "is not Unicode text"  # a lone surrogate escape is legal JSON and no legal UTF-8

_SESSION_NAME = re.compile(rf"[A-Za-z0-9._:@+-]{{1,{SESSION_NAME_MAX}}}")
_TENANT = re.compile(rf"[A-Za-z0-9._-]{{1,{TENANT_MAX}}}")


@lru_cache(maxsize=65_536)  # what is refused is not kept
def check_session_name(name: str) -> str:
    """The name itself, 1-128 characters of ``[A-Za-z0-9._:@+-]``, or BadName.

    ``.`` and ``..`` are refused too: clients resolve them away in URLs, and ask for something else than they were told.
    """
    if not _SESSION_NAME.fullmatch(name) or name in {".", ".."}:
        raise BadName(f"a session name is 1 to {SESSION_NAME_MAX} characters of A-Z a-z 0-9 . _ : @ + -")
    return name


def check_tenant(name: str) -> str:
    """The tenant's name itself, 1-64 characters of ``[A-Za-z0-9._-]``, or BadName."""
    if not _TENANT.fullmatch(name):
        raise BadName(f"a tenant is 1 to {TENANT_MAX} characters of A-Z a-z 0-9 . _ -")
    return name


@lru_cache(maxsize=65_536)
def session_uuid(tenant: str, name: str) -> UUID:
    """The session's own uuid, derived from tenant and name: every key starts with it, so rows shard by session."""
    return uuid5(_NAMESPACE, f"{tenant}/{name}")


@lru_cache(maxsize=1024)
def check_type(ktype: str) -> str:
    """The key type itself, 1-64 characters without NUL, or BadName. Unknown types are as good as known ones."""
    if not 1 <= len(ktype) <= TYPE_MAX:
        raise BadName(f"a key type has 1 to {TYPE_MAX} characters, this one has {len(ktype)}")
    if "\0" in ktype:
        raise BadName(f"a key type {_NUL}")
    try:
        ktype.encode()
    except UnicodeEncodeError:
        raise BadName(f"a key type {_UNICODE}") from None
    return ktype


def check_id(key_id: str) -> bytes:
    """The id as UTF-8, 1-512 bytes without NUL, or BadName."""
    try:
        raw = key_id.encode()
    except UnicodeEncodeError:
        raise BadName(f"a key id {_UNICODE}") from None
    if b"\0" in raw:
        raise BadName(f"a key id {_NUL}")
    if not 1 <= len(raw) <= ID_MAX_BYTES:
        raise BadName(f"a key id has 1 to {ID_MAX_BYTES} bytes of UTF-8, this one has {len(raw)}")
    return raw


def check_ids(ids: Iterable[str]) -> list[bytes]:
    """`check_id` of many: in one go where nothing is wrong with any, as a commit brings them by the hundred."""
    names = list(ids)
    try:
        raw = [name.encode() for name in names]
    except UnicodeEncodeError:
        return [check_id(name) for name in names]
    lengths = list(map(len, raw))
    if raw and (min(lengths) < 1 or max(lengths) > ID_MAX_BYTES or b"\0" in b"".join(raw)):
        return [check_id(name) for name in names]
    return raw

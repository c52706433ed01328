"""Where bytes stand in the values of each key type, and how to spell them.

By schema, not by looks: ``session._chains.*.messageKeys`` is an object of numeric keys and stays one, because a session
holds no bytes at all. Only the tagged form (``{"type":"Buffer",…}``) is bytes wherever it stands. Sources: Baileys
7.0.0-rc.3 to rc14 and 6.7.24 (``Types/Auth.ts``, ``SignalKeyStore``), values measured with real releases.

| spelling | written by | read by |
|---|---|---|
| `base64` | BufferJSON | every release |
| `octets` | plain ``JSON.stringify`` of a Buffer | 6.x and up to 7.0.0-rc.3 |
| `indexed` | plain ``JSON.stringify`` of a Uint8Array | from 7.0.0-rc.4 |
| `text` | protobuf ``toJSON`` | fields that take both |
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

from protocol.buffer_json import to_bytes
from protocol.errors import BadValue

CREDS: Final = ""
"""The type under which creds are known here, as in the store."""


class Spelling(StrEnum):
    """How bytes are written in JSON."""

    base64 = "base64"
    octets = "octets"
    indexed = "indexed"
    text = "text"


class Leaf(Enum):
    """What stands at a place. ``any``: plain JSON, bytes only where tagged; ``verbatim``: nothing below is ever touched."""

    any = "any"
    verbatim = "verbatim"
    bytes = "bytes"
    bytes_or_text = "bytes or base64 text"  # fields read through protobuf's fromObject
    record = "bytes that hold the JSON of a sender key record"


@dataclass(frozen=True, slots=True)
class Each:
    """A list or a map whose members are all alike."""

    member: "Shape"


Shape = Leaf | Each | Mapping[str, "Shape"]

_PAIR: Final[Shape] = {"private": Leaf.bytes, "public": Leaf.bytes}
_ADV: Final[Shape] = dict.fromkeys(
    ("details", "accountSignatureKey", "accountSignature", "deviceSignature"), Leaf.bytes_or_text
)

RECORD: Final[Shape] = Each(
    {
        "senderChainKey": {"seed": Leaf.bytes},
        "senderSigningKey": _PAIR,
        "senderMessageKeys": Each({"seed": Leaf.bytes}),
    }
)
"""A sender key record: what ``SenderKeyRecord.serialize`` gives."""

SHAPES: Final[Mapping[str, Shape]] = {
    CREDS: {
        "noiseKey": _PAIR,
        "pairingEphemeralKeyPair": _PAIR,
        "signedIdentityKey": _PAIR,
        "signedPreKey": {"keyPair": _PAIR, "signature": Leaf.bytes},
        "account": _ADV,
        "signalIdentities": Each({"identifierKey": Leaf.bytes}),
        "routingInfo": Leaf.bytes,
        "identityId": Leaf.bytes,  # 6.x
        "backupToken": Leaf.bytes,  # 6.x
        "additionalData": Leaf.any,
    },
    "pre-key": _PAIR,
    "session": Leaf.verbatim,
    "sender-key": Leaf.record,
    "app-state-sync-key": {"keyData": Leaf.bytes_or_text},
    "app-state-sync-version": {"hash": Leaf.bytes, "indexValueMap": Each({"valueMac": Leaf.bytes})},
    "tctoken": {"token": Leaf.bytes},
    "identity-key": Leaf.bytes,
}

_DISPLAYED: Final = frozenset({"name", "notify", "verifiedName", "pushName"})
_LONE: Final = re.compile("[\ud800-\udfff]")

Visit = Callable[[Any, Leaf, str], Any]
"""``visit(value met, what stands there, pointer) -> value to put there``."""


def walk(value: Any, shape: Shape, visit: Visit, pointer: str = "") -> Any:
    """The value with every place of bytes visited, in order. Raises what ``visit`` raises.

    Not by recursion: what parses may be nested deeper than calls may be.
    """
    root: list[Any] = [None]
    todo: list[tuple[Any, Any, Any, Shape, str]] = [(root, 0, value, shape, pointer)]
    while todo:
        into, place, value, shape, pointer = todo.pop()
        if shape is Leaf.verbatim or value is None:
            into[place] = value
        elif isinstance(shape, Leaf) and shape is not Leaf.any:
            into[place] = visit(value, shape, pointer)
        elif isinstance(value, dict):
            if _is_tagged(value):
                into[place] = visit(value, Leaf.bytes, pointer)
                continue
            made = into[place] = dict.fromkeys(value)
            todo += [(made, name, value[name], _below(shape, name), f"{pointer}/{name}") for name in reversed(value)]
        elif isinstance(value, list):
            below = shape.member if isinstance(shape, Each) else Leaf.any
            made_list = into[place] = [None] * len(value)
            todo += [(made_list, at, value[at], below, f"{pointer}/{at}") for at in reversed(range(len(value)))]
        else:
            into[place] = value
    return root[0]


def spelling_of(value: Any) -> Spelling:
    """How these bytes are written. BadValue for anything that is not bytes in any spelling."""
    if isinstance(value, str):
        return Spelling.text
    if isinstance(value, dict):
        if value.get("type") != "Buffer":
            return Spelling.indexed
        return Spelling.base64 if isinstance(value.get("data"), str) else Spelling.octets
    raise BadValue("not bytes in any spelling")


def spell(data: bytes, spelling: Spelling) -> Any:
    """Bytes as a JSON value."""
    if spelling is Spelling.indexed:
        return {str(at): octet for at, octet in enumerate(data)}
    text = base64.b64encode(data).decode()
    if spelling is Spelling.text:
        return text
    return {"type": "Buffer", "data": text if spelling is Spelling.base64 else list(data)}


def respell(ktype: str, value: Any, spelling: Spelling, met: "Counter[Spelling] | None" = None) -> Any:
    """The value with its bytes spelled one way, inside sender key records too; ``met`` counts what was met.

    Base64 text stays where a field takes it. A record that is no bytes (the array of old releases) keeps its form.
    Raises BadValue with a pointer where bytes must be and are not.
    """
    met = Counter() if met is None else met

    def visit(found: Any, leaf: Leaf, pointer: str) -> Any:
        if leaf is Leaf.record and isinstance(found, list):
            return walk(found, RECORD, visit, pointer)
        data = read(found, pointer)
        was = spelling_of(found)
        met[was] += 1
        if leaf is Leaf.record:
            data = _inner(data, lambda record: walk(record, RECORD, visit, f"{pointer}#"))
        if was is Spelling.text and leaf is Leaf.bytes_or_text:
            return found
        return spell(data, spelling)

    try:
        return walk(value, SHAPES.get(ktype, Leaf.any), visit)
    except RecursionError:
        raise BadValue("nested too deep") from None


def read(value: Any, pointer: str = "") -> bytes:
    """The bytes of any spelling; ``{}`` is how an empty Uint8Array is written. BadValue otherwise."""
    if isinstance(value, dict) and not value:
        return b""
    return to_bytes(value, pointer)


def parse(text: bytes) -> Any:
    """JSON text as values. BadValue when it is none, or holds what JSON cannot (``NaN``) or we will not (1,000 levels)."""
    try:
        return _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        raise BadValue("not JSON") from None


def dump(value: Any) -> bytes:
    """Values as compact JSON text, members in their order. BadValue for numbers beyond a double."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):
        raise BadValue("a number that JavaScript cannot hold") from None
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate is legal JSON as an escape only
        return json.dumps(value, separators=(",", ":")).encode()


def whole_characters(value: Any, member: str = "") -> Any:
    """The value with half a character (a lone surrogate) in a display name as U+FFFD, which is what everybody is shown."""
    if isinstance(value, str):
        return _LONE.sub("\ufffd", value) if member in _DISPLAYED else value
    if isinstance(value, dict):
        return {name: whole_characters(each, name) for name, each in value.items()}
    return [whole_characters(each) for each in value] if isinstance(value, list) else value


def _inner(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """The text of a record with its values changed; anything but a record stays as it is."""
    try:
        record = parse(data)
    except BadValue:
        return data
    if not isinstance(record, list):
        return data
    changed = change(record)
    return data if changed == record else dump(changed)


def _is_tagged(value: dict[str, Any]) -> bool:
    return value.get("type") == "Buffer" and len(value) == len(("type", "data")) and "data" in value


def _below(shape: Shape, name: str) -> Shape:
    if isinstance(shape, Each):
        return shape.member
    return Leaf.any if isinstance(shape, Leaf) else shape.get(name, Leaf.any)


def _no_constant(name: str) -> None:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)  # made once: it is asked for every row

"""Bodies whose values stay text: only what names them is decoded.

msgspec's ``Raw`` gives a value as the slice it was sent as, checked for JSON grammar but not built. It refuses the one
thing JavaScript writes and UTF-8 cannot hold, an escaped lone surrogate (``"\\ud83d"``, half an emoji of a cut-off name).
Such escapes are therefore replaced by an unguessable marker before decoding and put back in every slice.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec

from service.errors import ServiceError

T = TypeVar("T")

_FIRST: Final = rb"[dD][89abAB][0-9a-fA-F]{2}"
_SECOND: Final = rb"[dD][c-fC-F][0-9a-fA-F]{2}"
# Where a lone surrogate begins. Nothing is called for an escape, not even for one of these: a body may hold millions.
_LONE: Final = re.compile(
    rb"\\u(?:(?=%b(?!\\u%b))|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)(?=%b))" % (_FIRST, _SECOND, _SECOND)
)
_PAIR: Final = re.compile(rb"\\u%b\\u%b" % (_FIRST, _SECOND))
_ESCAPE: Final = 6  # the length of a surrogate's
_BACKSLASH: Final = b"\\\\"
_HIDDEN: Final = b"\xff"  # never in UTF-8
_PIECE: Final = 1 << 18
_PATH_NAME: Final = re.compile(r"\.([A-Za-z_]+)|\[(\d+)\]")
_PLAIN_NAME: Final = re.compile(r"Object contains unknown field `([A-Za-z_]{1,32})`")


class BadBody(ServiceError):
    """The body is not JSON of this shape."""


class BadMedia(ServiceError):
    """The body is JSON: send it with Content-Type: application/json."""


class Decoded(Generic[T]):
    """A decoded body. Its Raw slices and names are read through here, so that masked escapes come back.

    ``text``: the bytes that were sent. ``name``: the name that was sent; where it held a lone surrogate it holds one again,
    for the grammar to refuse.
    """

    def __init__(self, value: T, marker: str | None = None) -> None:
        self.value = value
        # Nothing is masked in nearly every body, and a body has thousands of either.
        self.text: Callable[[msgspec.Raw], bytes] = bytes
        self.name: Callable[[str], str] = str
        if marker is not None:
            raw, name = _mask(marker), re.compile("\uf8ff" + marker + "....")
            self.text = lambda text: bytes(text).replace(raw, rb"\u")
            self.name = partial(name.sub, "\ud800")


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> Decoded[T]:
    """Raises BadBody."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise BadBody("the body is not UTF-8") from None
    try:
        return Decoded(decoder.decode(body))
    except msgspec.ValidationError as error:
        raise _shape(error) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _decode_masked(decoder, body)


def _decode_masked(decoder: "msgspec.json.Decoder[T]", body: bytes) -> Decoded[T]:
    marker = secrets.token_hex(8)
    mask = _mask(marker).replace(rb"\u", rb"\\u")  # as a template says it
    # Without the escaped backslashes every other one begins an escape.
    pieces = _pieces(body.replace(_BACKSLASH, _HIDDEN))
    masked = b"".join([_LONE.sub(mask, piece) for piece in pieces]).replace(_HIDDEN, _BACKSLASH)
    try:
        return Decoded(decoder.decode(masked), marker)
    except msgspec.ValidationError as error:
        raise _shape(error) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadBody("the body is not JSON, or nested too deep") from None


def _mask(marker: str) -> bytes:
    """Stands for the ``\\u`` of a lone surrogate."""
    return rb"\uf8ff" + marker.encode()


def _pieces(text: bytes) -> Iterator[bytes]:
    """Between two pieces other threads have their turn. None ends within an escape or a pair of surrogates."""
    start = 0
    while start < len(text):
        end = start + _PIECE
        if end < len(text) and (escape := text.rfind(b"\\", end - _ESCAPE, end)) >= 0:
            end = escape + _ESCAPE if _PAIR.match(text, escape - _ESCAPE) else escape
        yield text[start:end]
        start = end


def _shape(error: msgspec.ValidationError) -> BadBody:
    """What is wrong and where, without the member names that came from outside."""
    text, _, path = str(error).partition(" - at `")
    if text.startswith("Object contains unknown field"):
        named = _PLAIN_NAME.fullmatch(text)
        text = f"an unknown member, {named[1]}" if named else "an unknown member"
    elif text.startswith("Invalid"):
        text = "not one of the allowed values"
    pointer = ""
    for found in _PATH_NAME.finditer(path.partition("[...]")[0]):
        pointer += "/" + (found[1] or found[2])
    return BadBody(f"the body has not the right shape: {text}", pointer=pointer or None)


def is_object(raw: bytes) -> bool:
    """Whether a JSON text is an object."""
    return raw[:1] == b"{"


quoted: Final[Callable[[str], bytes]] = msgspec.json.encode
"""A string as JSON. Every name of an answer goes through it: not through another function as well."""


def encode(value: Any) -> bytes:
    """Any value of ours as JSON."""
    return msgspec.json.encode(value)

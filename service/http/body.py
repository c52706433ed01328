"""A request's body, whole: its media type, its coding, its size. Unpacked here and not by the server below, which would
take a gzip body that lacks its end, and answers 400 to codings it does not know.
"""

import asyncio
import zlib
from typing import Final

from aiohttp import web

from service.http.raw_json import BadBody, BadMedia

_JSON: Final = "application/json"
_PLAIN: Final = ("", "identity")
_GZIP: Final = 16 + zlib.MAX_WBITS
_AT_ONCE: Final = 1 << 16  # unpacking more than this, or from more, would keep the loop from its other work
_PACKED_MOST: Final = 4  # packed bytes for each of the content, beyond what is taken at once


async def read_body(request: web.Request) -> bytes:
    """The bytes that were meant. BadBody when cut off, BadMedia, 413 as aiohttp's own exception."""
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _PLAIN and coding != "gzip":
        raise BadMedia("Content-Encoding is gzip, or there is none")
    if request.headers.get("Content-Type", _JSON) != _JSON and not _is_json(request.content_type):
        raise BadMedia
    most = request.client_max_size
    try:
        # A small body mostly came with its head: nothing to wait for.
        raw = request.content.read_nowait() if request.content.is_eof() else await request.read()
    except (web.RequestPayloadError, ValueError):
        raise BadBody("the body is cut off") from None
    if len(raw) > most:
        raise web.HTTPRequestEntityTooLarge(most, len(raw))
    if coding in _PLAIN:
        return raw
    return await _unpack(raw, most)


def _is_json(media_type: str) -> bool:
    return media_type == _JSON or media_type.endswith("+json")


async def _unpack(raw: bytes, most: int) -> bytes:
    """A gzip file's content: one member, to its end, at most ``most`` bytes."""
    gzip = zlib.decompressobj(_GZIP)
    try:
        content = gzip.decompress(raw[:_AT_ONCE], min(most + 1, _AT_ONCE))
        ended = gzip.eof and len(raw) <= _AT_ONCE
        if not gzip.eof and (len(raw) > _AT_ONCE or _AT_ONCE == len(content) <= most):
            rest, ended = await asyncio.to_thread(_unpack_rest, gzip, raw, most - len(content))
            content += rest
    except zlib.error:
        raise BadBody("the body is not gzip") from None
    if len(content) > most:
        raise web.HTTPRequestEntityTooLarge(most, len(content))
    if not ended or gzip.unused_data:
        raise BadBody("the body is not one whole gzip file")
    return content


def _unpack_rest(gzip: "zlib._Decompress", raw: bytes, most: int) -> tuple[bytes, bool]:
    """What follows the first step, a byte more than ``most`` at most, and whether the file ends where the body does.

    A block may be empty and still cost its tables: what hardly grows is no gzip that anybody packed.
    """
    pieces = [gzip.unconsumed_tail, *(raw[at : at + _AT_ONCE] for at in range(_AT_ONCE, len(raw), _AT_ONCE))]
    content, taken = bytearray(), 0
    for number, piece in enumerate(pieces, 1):
        content += gzip.decompress(piece, most + 1 - len(content))
        taken += len(piece)
        if len(content) > most or gzip.eof:
            return bytes(content), gzip.eof and number == len(pieces)
        if taken > _AT_ONCE + _PACKED_MOST * len(content):
            raise BadBody("the gzip file is much longer than what it holds")
    return bytes(content), False

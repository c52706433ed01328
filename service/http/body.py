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
_AT_ONCE: Final = 1 << 16  # unpacking more than this would keep the loop from its other work


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
    """A gzip file's content: one member, to its end, at most ``most`` bytes. What it becomes tells how long it takes."""
    gzip = zlib.decompressobj(_GZIP)
    try:
        content = gzip.decompress(raw, min(most + 1, _AT_ONCE))
        if not gzip.eof and _AT_ONCE == len(content) <= most:
            content += await asyncio.to_thread(gzip.decompress, gzip.unconsumed_tail, most + 1 - len(content))
    except zlib.error:
        raise BadBody("the body is not gzip") from None
    if len(content) > most:
        raise web.HTTPRequestEntityTooLarge(most, len(content))
    if not gzip.eof or gzip.unused_data:
        raise BadBody("the body is not one whole gzip file")
    return content

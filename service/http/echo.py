"""``Authstore-Echo``: a word of whoever asks, given back with the answer and used for nothing else.

A proxy that is out of step by one answer would otherwise hand one session's keys to another, and neither could tell.
"""

from typing import Final

from aiohttp import web

ECHO: Final = "Authstore-Echo"
ECHO_IS: Final = "1 to 64 letters, digits and hyphens, given back with the answer: an answer without them is another's."
_LONGEST: Final = 64


def echo(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Gives the word back, if it is one. Before the response is prepared."""
    word = request.headers.get(ECHO)
    if word is not None and len(word) <= _LONGEST and word.isascii() and word.replace("-", "0").isalnum():
        response.headers[ECHO] = word

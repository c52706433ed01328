"""JSON text -> what it says, for values that are judged. Whatever is valid JSON is read or refused, never a crash."""

import json
from typing import Any, Final

from protocol.errors import BadValue

_DIGITS: Final = 20  # more than any number that is judged; Python refuses to read thousands of them


def parse(text: bytes) -> Any:
    """The value. A whole number of more than 20 digits becomes an infinite float. BadValue when nested too deep."""
    try:
        return _DECODER.decode(text.decode("utf-8", "surrogatepass"))
    except RecursionError:
        raise BadValue("nested too deep") from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


_DECODER: Final = json.JSONDecoder(parse_int=_whole)  # made once: it is asked for every row of a check

"""HTTP/1.1 as bare as it goes: one request after the other on a connection, whole before it is answered."""

import asyncio
import re
from abc import abstractmethod
from typing import Final, cast

from typing_extensions import override

_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


class BareHttp(asyncio.Protocol):
    """A connection. Header names are in lower case, as our client and our scripts send them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._head = b""
        self._left = 0

    @abstractmethod
    def take(self, head: bytes, body: list[bytes]) -> None:
        """A request: its head, each line with its end, and its body in the pieces in which it came."""

    def answer(self, body: bytes) -> None:
        """The request taken last."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._head:
            head, found, data = b"".join([*self._parts, data]).partition(b"\r\n\r\n")
            if not found:
                self._parts = [head]
                return
            self._parts, self._head = [], head + b"\r\n"
            length = _LENGTH.search(self._head)
            self._left = int(length[1]) if length else 0
        self._parts.append(data)
        self._left -= len(data)
        if self._left == 0:
            head, body = self._head, self._parts
            self._head, self._parts = b"", []
            self.take(head, body)

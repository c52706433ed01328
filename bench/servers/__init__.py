"""Private servers for a run; each a context manager that leaves nothing behind."""

import socket


class Missing(Exception):
    """A server's programs are not on this machine; the message names them."""


def free_port() -> int:
    """A TCP port of the loopback nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

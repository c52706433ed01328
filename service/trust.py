"""TLS contexts that judge a certificate alike on every Python.

From 3.13 on `ssl.create_default_context` refuses certificates that lack what RFC 5280 asks of authorities, such as the key
identifier that many a self-made one never wrote, and takes an intermediate for a root. Whether a deployment's certificates
do must not change with the Python beneath it.
"""

import ssl
from pathlib import Path

_SINCE_3_13 = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN


def for_clients(ca_file: Path | str | None = None) -> ssl.SSLContext:
    """Verifies servers in full: by the system's roots, or those of the file. Raises OSError."""
    return _alike(ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file))


def for_a_server() -> ssl.SSLContext:
    """Asks clients for nothing until it is told to."""
    return _alike(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))


def _alike(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_flags &= ~_SINCE_3_13
    return context

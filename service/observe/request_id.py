"""The id of a request: made here, never taken from the caller; the one thing a 500 may say."""

import os


def new_request_id() -> str:
    """32 hexadecimal digits, random."""
    return os.urandom(16).hex()

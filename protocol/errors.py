"""Errors of the pure layer. They carry lengths and types, never bytes, names or ids.

ProtocolError
├── BadName        a session name, key type or key id outside its grammar
└── BadValue       JSON that cannot be what it must be to be judged (creds, a pre-key)
    ├── BadKeyPair    a public key that is not its private key's
    └── BadSignature  a signature that does not verify
"""


class ProtocolError(Exception):
    """Something is not what the protocol allows."""


class BadName(ProtocolError):
    """A session name, key type or key id is outside its grammar."""


class BadValue(ProtocolError):
    """A value that must be judged cannot be read. ``pointer`` is the JSON pointer of the member, from the value's root."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


class BadKeyPair(BadValue):
    """A public key is not its private key's."""


class BadSignature(BadValue):
    """A signature does not verify."""

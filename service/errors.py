"""Domain errors. They know nothing of HTTP, and carry no value, id, name or token: `http/problems.py` gives statuses.

ServiceError
├── BadInput              a value is outside its grammar (pointer)
├── Unauthorized          no token, or none we know
├── Forbidden             the token's scope does not reach this
├── NoSession             no such session (also: another tenant's)
├── NoCreds               the session holds no creds yet
├── Deleted               the session was deleted; it can be restored for a while
├── Refused               a refusal that protects an identity; nothing was stored
│   ├── Fenced            the request's epoch, or its lack of one, does not go with the session's lease
│   ├── IdentityReplaced
│   ├── CounterRegressed
│   └── PreKeyOverwritten
├── VersionMismatch       If-Match names another version
│   └── OutcomeUnknown    too much was committed since to tell whether this commit was stored
├── LeaseHeld             another holder's lease lives
├── KeyReused             an Idempotency-Key came back with another body
├── Corrupt               a stored row does not open or does not match; never "absent"
├── Unavailable           the database is away or busy; nothing is known to have changed
│   ├── TurnLost          another may carry the session's commits to its source now
│   └── NotLetIn          it is there and refuses us; waiting alone will not change that
├── NotYet                described by the contract, not built yet
├── DatabaseFault         the database refused a statement: a fault of ours, known by its SQLSTATE alone
└── StartError            the service must not start
    ├── WrongMasterKey
    ├── WrongSchema
    └── NotPermitted      the database's role lacks a privilege
"""


class ServiceError(Exception):
    """Something the caller must hear about. The first line of the docstring is the default text."""

    def __init__(self, detail: str | None = None, *, pointer: str | None = None) -> None:
        doc = (type(self).__doc__ or "").splitlines()[0]
        super().__init__(detail or doc)
        self.detail = detail or doc
        self.pointer = pointer


class BadInput(ServiceError):
    """A value is outside its grammar."""


class Unauthorized(ServiceError):
    """A valid bearer token is needed."""


class Forbidden(ServiceError):
    """The token's scope does not allow this."""


class NoSession(ServiceError):
    """There is no such session."""


class NoCreds(ServiceError):
    """The session holds no creds yet."""


class Deleted(ServiceError):
    """The session was deleted."""


class Refused(ServiceError):
    """Refused to protect the identity; nothing was stored."""


class Fenced(Refused):
    """This request does not go with the session's lease."""


class IdentityReplaced(Refused):
    """These creds would replace the stored identity; "reset" starts over, "force" overrides."""


class CounterRegressed(Refused):
    """A counter of the creds would go back; "force" overrides."""


class PreKeyOverwritten(Refused):
    """A stored pre-key would get other bytes; "force" overrides."""


class VersionMismatch(ServiceError):
    """The session is at another version."""


class OutcomeUnknown(VersionMismatch):
    """The database was lost while this was stored, and too much was committed since to tell whether it was: read anew."""


class LeaseHeld(ServiceError):
    """Another holder's lease lives."""

    def __init__(self, holder: str, expires_at: str, epoch: int) -> None:
        super().__init__()
        self.holder = holder
        self.expires_at = expires_at
        self.epoch = epoch


class KeyReused(ServiceError):
    """This Idempotency-Key was used for another body."""


WHOLE_SET = "set"
"""Stands for a type where the mark of all rows does not hold."""


class Corrupt(ServiceError):
    """A stored row does not open or does not match.

    ``row`` is the keyed hash by which the row is found (hex, reveals nothing without the data key), None for creds.
    """

    def __init__(self, ktype: str, row: str | None, *, pointer: str | None = None) -> None:
        what = f"a row of type {ktype} does" if ktype else "the creds row does"
        if ktype == WHOLE_SET:
            what = "the session's rows taken together do"
        super().__init__(f"{what} not open or not match what was committed", pointer=pointer)
        self.ktype = ktype
        self.row = row


class Unavailable(ServiceError):
    """The database is not available."""

    retry_after_s = 2


class TurnLost(Unavailable):
    """The connection that held the session's turn was lost; what is not known to be carried waits, and is written again."""


class NotLetIn(Unavailable):
    """The database does not let this service in."""


class NotYet(ServiceError):
    """Not built yet."""


class DatabaseFault(ServiceError):
    """The database refused a statement."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"The database refused a statement (SQLSTATE {sqlstate}).")
        self.sqlstate = sqlstate


class StartError(ServiceError):
    """The service cannot start."""


class WrongMasterKey(StartError):
    """The configured master key is not the one this database is sealed with."""


class WrongSchema(StartError):
    """The database's schema does not fit this release."""


class NotPermitted(StartError):
    """The database's role lacks a privilege."""

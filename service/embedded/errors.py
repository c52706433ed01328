"""What can keep the embedded Postgres from running. Texts name folders and settings, never a value or a secret.

EmbeddedError
├── AlreadyRunning     another service holds this data folder
├── UnsafeFolder       a folder cannot be used, belongs to somebody else, or others can write in it
├── NoAccount          no operating-system user that may run Postgres
├── NoBinaries         the Postgres programs are missing, or that user cannot run them
├── WrongMajor         the data was made by another major release of Postgres
├── SettingsRefused    own settings switch durability off, or cannot be read
├── ForeignServer      a Postgres that we did not start runs on this data
├── SocketTaken        a Postgres of another folder listens where ours would
├── InitFailed         the data could not be made
├── StartFailed        Postgres ended while it was starting
├── StopFailed         Postgres did not end
├── NotAnswering       the folder is held, yet its Postgres does not answer
└── NotMainThread      the server was to be started from a thread that may end before the process
"""


class EmbeddedError(Exception):
    """The embedded Postgres cannot be used. The first line of the docstring is the default text."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or (type(self).__doc__ or "").splitlines()[0])


class AlreadyRunning(EmbeddedError):
    """Another service holds this data folder."""


class UnsafeFolder(EmbeddedError):
    """A folder cannot be used, belongs to somebody else, or others can write in it."""


class NoAccount(EmbeddedError):
    """There is no operating-system user that may run Postgres."""


class NoBinaries(EmbeddedError):
    """The Postgres programs are missing, or the user that runs Postgres cannot run them."""


class WrongMajor(EmbeddedError):
    """The data folder was made by another major release of Postgres.

    ``found`` and ``needed`` are the major numbers of the data and of the programs.
    """

    def __init__(self, found: str, needed: int) -> None:
        super().__init__(
            f"the data folder holds data of Postgres {found}, the programs are Postgres {needed}: "
            f"back up with the old release and restore with the new one"
        )
        self.found = found
        self.needed = needed


class SettingsRefused(EmbeddedError):
    """Own Postgres settings switch durability off, or cannot be read."""


class ForeignServer(EmbeddedError):
    """A Postgres that this service did not start runs on this data folder; stop it first.

    ``pid`` is its process id.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"process {pid} is a Postgres on this data folder that this service did not start: stop it first"
        )
        self.pid = pid


class SocketTaken(EmbeddedError):
    """A Postgres of another data folder listens on the socket of this one."""


class InitFailed(EmbeddedError):
    """The database could not be made."""


class StartFailed(EmbeddedError):
    """Postgres ended while it was starting."""


class StopFailed(EmbeddedError):
    """Postgres did not end."""


class NotAnswering(EmbeddedError):
    """The data folder is held by a service whose Postgres does not answer."""


class NotMainThread(EmbeddedError):
    """The embedded Postgres is tied to the thread that starts it: start it from the main thread."""

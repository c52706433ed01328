"""Becomes a Postgres program that ends when its parent does: ``shim.py UID GID PARENT SIGNAL PROGRAM ARGUMENT...``

Run as a script, with nothing but the standard library. Everything is loaded before the identity changes, since the
interpreter itself may live where the new user cannot look. The death signal is asked for after that, because setuid
forgets it, and bound to the parent's *thread* that forked.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CANNOT_EXECUTE = 126


def _become(uid: int, gid: int) -> None:
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def main(argv: list[str]) -> int:
    """Execute PROGRAM as UID and GID, to receive SIGNAL once PARENT is gone. Returns only when that fails."""
    uid, gid, parent, death_signal = (int(word) for word in argv[:4])
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    _become(uid, gid)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0 or os.getppid() != parent:
        return CANNOT_EXECUTE
    # The interpreter ignores these two, and what is ignored stays so across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.execv(argv[4], argv[4:])  # noqa: S606
    except OSError as error:
        print(f"cannot execute: {error.strerror}", file=sys.stderr)  # noqa: T201
    return CANNOT_EXECUTE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a session means: who may write it, what protects it, and that it comes back as it was.

`AuthStore` is the only object the edge calls; its first parameter is the caller, its first line the check. Each public
method is one transaction, except that a session met for the first time is looked up before.

| file | purpose |
|---|---|
| `auth_store.py` | `AuthStore`: the caller's check, then the right room |
| `configured.py` | a store as the settings want it |
| `caller.py` | who asks: tenant and scope |
| `heads.py` | what is remembered of a session between commits, and who is next to commit |
| `request.py` | a commit as it was asked for, and what is made of it once |
| `commits.py` | a commit from request to answer: judge, seal, apply, or say why not |
| `changes.py` | what a commit makes of a session: judged, sealed, marked; pure |
| `batches.py` | commits that came together |
| `guards.py` | the refusals that protect an identity |
| `entries.py` | a commit as one text: how a journal and a mirror keep it |
| `journal.py`, `settling.py` | commits that wait to become rows: what they say of the session, and how they do |
| `mirrors.py` | commits kept for another store until it has them; where a session came from |
| `shares.py` | slots that tenants share in turns |
| `holders.py` | who keeps a connection for long, and what is left to others |
| `reads.py` | opening rows and what waits above them: gets, pages, whole states proven by their mark |
| `sessions.py` | summaries, leases, deletion and the way back |
| `keyring.py` | master keys against the database: start check, rotation |
| `tokens.py` | bearer tokens: made, found, revoked |

Why a head may be remembered at all: a commit applies only to the version it was computed from, so a stale memory costs a
second look, never a wrong write. Refusals are only spoken after a fresh look.
"""

from service.store.auth_store import AuthStore
from service.store.caller import Caller
from service.store.configured import make_store, store_options

__all__ = ["AuthStore", "Caller", "make_store", "store_options"]

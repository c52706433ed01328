"""Our side: what a session holds here, read in one snapshot and proven by its mark."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.digest import combine, digest, verbatim
from protocol.errors import BadValue
from protocol.spelling import CREDS
from service.errors import NoSession
from service.migrate.plan import Name
from service.records import Lease
from service.store import AuthStore, Caller


@dataclass(slots=True)
class Target:
    """A session here. ``lease`` only while it lives; ``texts`` and ``digests`` hold creds under ``("", "")``."""

    version: int
    epoch: int
    lease: Lease | None
    mirrored: bool
    texts: dict[Name, bytes] = field(repr=False)
    digests: dict[Name, bytes] = field(repr=False)

    @property
    def digest(self) -> bytes:
        return combine((ktype, key_id, each) for (ktype, key_id), each in self.digests.items())

    @property
    def creds(self) -> bytes | None:
        return self.texts.get((CREDS, ""))

    @property
    def rows(self) -> Iterable[tuple[str, str, bytes]]:
        """Every key but the creds: type, id, text."""
        return ((ktype, key_id, text) for (ktype, key_id), text in self.texts.items() if ktype != CREDS)


async def read_target(store: AuthStore, caller: Caller, name: str) -> Target | None:
    """The session as it stands here; None when there is none. Raises Deleted, Corrupt, Unavailable."""
    try:
        async with store.state(caller, name) as state:
            head, lease = state.row.head, state.row.lease
            target = Target(
                head.version, head.epoch, lease if lease is not None and lease.live else None, head.mirrored, {}, {}
            )
            async for chunk in state.chunks:
                for opened in chunk:
                    key = opened.ktype, opened.key_id.decode()
                    target.texts[key] = opened.value
                    target.digests[key] = _digest(opened.ktype, opened.value)
    except NoSession:
        return None
    return target


def _digest(ktype: str, text: bytes) -> bytes:
    """A stored value that is none of its type equals nothing but one that says the very same."""
    try:
        return digest(ktype, text)
    except BadValue:
        return verbatim(ktype, text)

"""Session records and identity keys."""

from collections.abc import Iterator
from typing import Any, Final

from protocol.checks.context import Context
from protocol.curve import check_pair, is_clamped
from protocol.errors import BadKeyPair, BadValue
from protocol.records import identity_key
from protocol.rules import Finding
from protocol.session_record import (
    OURS,
    RECEIVING,
    SENDING,
    VERSION,
    Chain,
    Index,
    Ratchet,
    has_registration,
    is_unknown_form,
    parse_chains,
    parse_index,
    parse_ratchet,
    pending_base_key,
    states,
)

SESSION: Final = "session"
IDENTITY_KEY: Final = "identity-key"

_MOST_STATES: Final = 41  # libsignal keeps 40 closed ones
_MANY_CHAINS: Final = 500


def check_session(context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One session record, and the identity it was made with against the one that is known."""
    context.has_paired_keys = True
    if is_unknown_form(value):
        yield Finding("session-unknown-form", SESSION, key_id)
        return
    try:
        found = states(value)
    except BadValue as error:
        yield Finding("session-unreadable", SESSION, key_id, str(error))
        return
    yield from _version(value, key_id)
    if len(found) > _MOST_STATES:
        yield Finding("session-states", SESSION, key_id, f"{len(found)} states")
    opened = unread = 0
    for number, (base_key, state) in enumerate(found.items(), 1):
        check = _State(key_id, f"state {number} of {len(found)}")
        yield from check.run(base_key, state)
        if check.index is None:
            unread += 1
        elif check.index.open:
            opened += 1
            yield from _identity(context, key_id, check.index.remote_identity)
    if opened != 1 and not unread:
        yield Finding("session-open-states", SESSION, key_id, f"{opened} open of {len(found)}")
    if "_" not in key_id:
        context.addresses.by_phone.append(key_id)


def check_identity_key(context: Context, key_id: str, value: Any) -> Iterator[Finding]:
    """One identity key, and the session's against it."""
    try:
        known = identity_key(value)
    except BadValue as error:
        yield Finding("identity-key-unreadable", IDENTITY_KEY, key_id, str(error))
        return
    addresses = context.addresses
    used = addresses.session_identities.pop(key_id, None)
    if used is None:
        addresses.known_identities[key_id] = known
    elif used != known:
        yield Finding("identity-key-mismatch", IDENTITY_KEY, key_id)


def check_orphans(context: Context) -> Iterator[Finding]:
    """Sessions left under the phone number of a contact that has a LID."""
    for key_id in context.addresses.by_phone:
        if key_id.partition(".")[0] in context.addresses.mapped:
            yield Finding("session-orphan", SESSION, key_id)


def _identity(context: Context, key_id: str, used: bytes) -> Iterator[Finding]:
    known = context.addresses.known_identities.pop(key_id, None)
    if known is None:
        context.addresses.session_identities[key_id] = used
    elif known != used:
        yield Finding("identity-key-mismatch", IDENTITY_KEY, key_id)


def _version(value: dict[str, Any], key_id: str) -> Iterator[Finding]:
    version = value.get("version")
    if version is None:
        yield Finding("session-legacy", SESSION, key_id)
    elif version != VERSION:
        yield Finding("session-version", SESSION, key_id)


class _State:
    """Judges one state, part by part."""

    def __init__(self, key_id: str, where: str) -> None:
        self._key_id = key_id
        self._where = where
        self.index: Index | None = None

    def run(self, base_key: str, state: Any) -> Iterator[Finding]:
        try:
            self.index = parse_index(base_key, state)
        except BadValue as error:
            yield self._bad("session-index", error)
        try:
            ratchet = parse_ratchet(state)
        except BadValue as error:
            yield self._bad("session-ratchet", error)
            ratchet = None
        try:
            chains = dict(parse_chains(state))
        except BadValue as error:
            yield self._bad("session-chain", error)
            chains = None
        is_pair = True
        if ratchet is not None:
            for finding in self._pair(ratchet):
                is_pair = is_pair and finding.rule != "session-ratchet-pair"
                yield finding
        if chains is not None:
            # A damaged public key finds no chain: told by its pair.
            yield from self._chains(ratchet if is_pair else None, chains)
        yield from self._first_message(state, ratchet, chains)
        if self.index is not None and self.index.open and not has_registration(state):
            yield Finding("session-registration", SESSION, self._key_id, self._where)

    def _pair(self, ratchet: Ratchet) -> Iterator[Finding]:
        try:
            check_pair(ratchet.private, ratchet.public)
        except BadKeyPair:
            yield Finding("session-ratchet-pair", SESSION, self._key_id, self._where)
        else:
            if not is_clamped(ratchet.private):
                yield Finding("key-unclamped", SESSION, self._key_id, self._where)

    def _chains(self, ratchet: Ratchet | None, chains: dict[bytes, Chain]) -> Iterator[Finding]:
        if len(chains) > _MANY_CHAINS:
            yield Finding("session-chains", SESSION, self._key_id, f"{self._where}: {len(chains)} chains")
        if ratchet is None:
            return
        sending = chains.get(ratchet.public)
        if sending is None or sending.kind != SENDING or not sending.has_key:
            yield Finding("session-sending-chain", SESSION, self._key_id, self._where)
        if any(chain.kind == SENDING for key, chain in chains.items() if key != ratchet.public):
            # libsignal drops the chain it sent with at every step: it takes this one for its own, and reads nothing by it.
            yield Finding("session-chain", SESSION, self._key_id, f"{self._where}: a second chain to send with")
        remote = chains.get(ratchet.last_remote)
        if remote is None and any(chain.kind == RECEIVING for chain in chains.values()):
            yield Finding("session-remote-ratchet", SESSION, self._key_id, self._where)
        is_open = self.index is not None and self.index.open
        if is_open and remote is not None and remote.kind == RECEIVING and not remote.has_key:
            yield Finding(
                "session-chain", SESSION, self._key_id, f"{self._where}: the contact's current chain is closed"
            )

    def _first_message(
        self, state: Any, ratchet: Ratchet | None, chains: dict[bytes, Chain] | None
    ) -> Iterator[Finding]:
        try:
            pending = pending_base_key(state)
        except BadValue as error:
            yield self._bad("session-pending-pre-key", error)
            return
        if self.index is None:
            return
        if pending is not None:
            if pending != self.index.base_key:
                yield Finding("session-pending-pre-key", SESSION, self._key_id, self._where)
            return
        is_ours = self.index.open and self.index.base_key_type == OURS
        if is_ours and ratchet is not None and chains is not None and chains.keys() <= {ratchet.public}:
            # Begun by us and never answered: without it the contact is sent messages of a session it knows nothing of.
            yield Finding("session-pending-pre-key", SESSION, self._key_id, f"{self._where}: it is missing")

    def _bad(self, rule: str, error: BadValue) -> Finding:
        return Finding(rule, SESSION, self._key_id, f"{self._where}: {error.pointer} {error}")

"""Seals what the database must not read, and marks what it must not change.

Keys::

    master key (32 bytes, file or environment) ── wraps ──> data key (32 bytes, one per session)
    data key ── HKDF-SHA256 ──> seal, find, digest, weight, mask, request      (one purpose each)

A stored row::

    kh      = 8 bytes of a keyed hash of the type ‖ 16 bytes of a keyed hash of (type, id)     finds the row
    sealed  = 01 ‖ data key number (4) ‖ nonce (12) ‖ AES-256-GCM(id length (2) ‖ id ‖ value text) ‖ tag (16)
              associated data: purpose ‖ tenant ‖ session uuid ‖ data key number ‖ kh ‖ digest ‖ type
    digest  = keyed BLAKE2b-128 of (type, id, value text): compares rows without opening them

Beside the rows, under the same data key, stand the journal's and a mirror's entries and the origin of a migrated session;
their associated data begins with a text of their own and names their purpose (an entry's holds its version), so none opens
as another.

Creds are the row of the empty type and the empty id. The associated data holds the id through its keyed hash, so a row
moved to another type, id, session or tenant does not open; a digest swapped for another does not open either.

The session's **mark** authenticates the set of its rows, so that a deleted, replayed or foreign row is noticed although
each row by itself is genuine. It is a Wegman-Carter code over the prime 2^61-1::

    mark = sum over rows of (w1·digest_hi + w2·digest_lo) + mask      (w1, w2) = AES(weight key, kh), mask = PRF(mask key, head)

An entry of the journal counts like a row, its GCM tag for a digest and its version for a hash, until it is carried over.

The sum can be moved by the database itself (subtract the old rows, add the new ones) without learning anything that
helps to forge: the weights are secret, and the mask, bound to version and head, makes each stored mark a one-time pad.
Forging or replaying succeeds with a chance of 2^-61 a try, and each try is noticed. What it cannot notice is the whole
session put back to an older state, head and rows together: a client that remembers its last version can.
"""

import hashlib
import hmac
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.errors import Corrupt, WrongMasterKey
from service.records import Opened, SealedRow, StoredRow

PRIME: Final = (1 << 61) - 1
KEY_BYTES: Final = 32
TAG_BYTES: Final = 8
CREDS_TYPE: Final = ""

_FORMAT: Final = 1
_NONCE_BYTES: Final = 12
_HEADER: Final = struct.Struct(">BI")
_ID_LENGTH: Final = struct.Struct(">H")
_DIGEST: Final = struct.Struct(">qq")
_HEADER_BYTES: Final = _HEADER.size
_SEALED_AT: Final = _HEADER_BYTES + _NONCE_BYTES
_WORDS: Final = struct.Struct(">2Q")
_GCM_TAG_BYTES: Final = 16
_FINGERPRINT_BYTES: Final = 8
_JOURNAL: Final = b"journal\0"
_PLACE: Final = struct.Struct(">8sQ")  # with a version: a block as long as those of rows, which are keyed hashes
_TYPES_REMEMBERED: Final = 64  # a bound, so that made-up types cannot grow a vault
_CHECK_TEXT: Final = b"authstore master key"


class _TypeKeys(NamedTuple):
    """What a vault remembers of a type: the tag its rows begin with, its name, and a hash that ids are added to."""

    tag: bytes
    name: bytes
    finder: "hashlib.blake2b"


class MasterKeys:
    """The configured master keys: the first one wraps, all of them open. A key's id is a fingerprint of it (16 hex digits).

    ``read`` gives the keys as they are configured now; `refresh` takes over what changed, so that a key rotates under a
    serving process. A key that is not configured any more still opens, until `forget` says that nothing needs it: who
    removes the wrong one must not take the sessions from a service that has them.
    """

    def __init__(self, keys: Sequence[bytes], read: Callable[[], Sequence[bytes]] | None = None) -> None:
        self._read = read
        self._former: dict[str, AESGCM] = {}
        self._keys: dict[str, AESGCM] = {}
        self._take(keys)

    def __repr__(self) -> str:
        return f"<MasterKeys {len(self._keys)}>"

    def refresh(self) -> bool:
        """Reads the configuration again; True when other keys are configured now."""
        before = (self.current, self.ids())
        if self._read is not None:
            self._take(self._read())
        return before != (self.current, self.ids())

    def _take(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise WrongMasterKey(f"a master key has {KEY_BYTES} bytes")
        configured = {_fingerprint(key): AESGCM(key) for key in keys}
        self._former |= self._keys
        self._keys = configured
        self.current = _fingerprint(keys[0])

    def forget(self) -> None:
        """Keys that are not configured any more do not open from now on."""
        self._former = {}

    def ids(self) -> frozenset[str]:
        """The configured keys."""
        return frozenset(self._keys)

    def missing(self, key_ids: AbstractSet[str]) -> AbstractSet[str]:
        """Those of the keys that are not configured, not even by now: another process may have rotated just before."""
        if not key_ids <= self.ids():
            self.refresh()
        return key_ids - self.ids()

    def wrap(self, data_key: bytes, context: bytes) -> tuple[str, bytes]:
        """``(id of the master key, nonce ‖ ciphertext ‖ tag)``; ``context`` must be given again to open it."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.current, nonce + self._keys[self.current].encrypt(nonce, data_key, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """The data key. WrongMasterKey when no key that we hold has this id, Corrupt when it does not open."""
        missing = self.missing({key_id})
        key = self._former.get(key_id) if missing else self._keys[key_id]
        if key is None:
            raise WrongMasterKey("a session is sealed under a master key that is not configured")
        try:
            return key.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except InvalidTag:
            raise Corrupt("data key", None) from None

    def check_value(self) -> bytes:
        """Proof that the current key was here, to be stored beside its id."""
        return self.wrap(_CHECK_TEXT, _CHECK_TEXT)[1]


def wrap_context(tenant: str, sid: bytes, dek_id: int) -> bytes:
    """Binds a wrapped data key to its session."""
    return b"authstore data key 1\0" + tenant.encode() + b"\0" + sid + dek_id.to_bytes(4, "big")


def new_data_key() -> tuple[int, bytes]:
    """``(number, 32 bytes)``. The number is random, so that a session made anew never repeats an older one's."""
    return int.from_bytes(os.urandom(4), "big") >> 1, os.urandom(KEY_BYTES)


class SessionVault:
    """Seals, opens, finds and marks the rows of one session. Holds key material: never logged, never pickled."""

    __slots__ = (
        "_aad",
        "_asked",
        "_beside",
        "_digest_key",
        "_digester",
        "_find_key",
        "_header",
        "_mask_key",
        "_seal",
        "_types",
        "_weigh",
        "dek_id",
    )

    def __init__(self, tenant: str, sid: bytes, dek_id: int, data_key: bytes) -> None:
        keys = HKDF(SHA256(), 6 * KEY_BYTES, salt=None, info=b"authstore session keys 1").derive(data_key)
        seal, self._find_key, self._digest_key, weight, self._mask_key, asked = (
            keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)
        )
        self._seal = AESGCM(seal)
        self._asked = AESGCM(asked)
        # ECB over 16-byte blocks that are themselves keyed hashes is AES used as a pseudo-random function: one call weighs
        # all rows of a batch. Nothing is encrypted with it, and without chaining one context serves every call.
        self._weigh = Cipher(algorithms.AES(weight), modes.ECB()).encryptor()  # noqa: S305
        self._aad = b"authstore row 1\0" + tenant.encode() + b"\0" + sid + dek_id.to_bytes(4, "big")
        self._beside = b"authstore entry 1\0" + self._aad
        self._header = _HEADER.pack(_FORMAT, dek_id)
        # Copied for each row: a keyed hash begins with a block of the key, which need not be absorbed anew.
        self._digester = hashlib.blake2b(key=self._digest_key, digest_size=16)
        self._types: dict[str, _TypeKeys] = {}
        self.dek_id = dek_id

    def __repr__(self) -> str:
        return "<SessionVault>"

    def type_tag(self, ktype: str) -> bytes:
        """The 8 bytes with which every ``kh`` of this type begins."""
        return self._type(ktype).tag

    def find(self, ktype: str, key_id: bytes) -> bytes:
        """The keyed hash by which the row of ``(ktype, key_id)`` is found, 24 bytes."""
        of_type = self._type(ktype)
        hashed = of_type.finder.copy()
        hashed.update(key_id)
        return of_type.tag + hashed.digest()

    def digest(self, ktype: str, key_id: bytes, value: bytes) -> tuple[int, int]:
        """Keyed digest of a value and its name, as two signed 64-bit numbers."""
        high, low = _DIGEST.unpack(self._digest(self._type(ktype), key_id, value))
        return high, low

    def weights(self, khs: Iterable[bytes]) -> list[tuple[int, int]]:
        """The secret weights of rows, two numbers below 2^61 each."""
        blocks = b"".join(kh[TAG_BYTES:] for kh in khs)
        words = struct.unpack(f">{len(blocks) // 8}Q", self._weigh.update(blocks))
        shifted = [word >> 3 for word in words]
        return list(zip(shifted[::2], shifted[1::2], strict=True))

    def weigh_all(self, rows: Sequence[StoredRow]) -> int:
        """The share of the mark that rows have together, not yet reduced."""
        total = 0
        for (first, second), row in zip(self.weights([row.kh for row in rows]), rows, strict=True):
            high, low = row.digest
            total += first * high + second * low
        return total

    def seal_all(self, rows: Sequence[tuple[str, bytes, bytes | None]]) -> list[SealedRow]:
        """Seals ``(type, id, value text or None to delete)`` rows."""
        khs = self.find_all(rows)
        nonces = os.urandom(_NONCE_BYTES * len(rows))
        encrypt, aad, header = self._seal.encrypt, self._aad, self._header
        sealed = []
        at = 0
        for (ktype, key_id, value), kh, weights in zip(rows, khs, self.weights(khs), strict=True):
            if value is None:
                sealed.append(SealedRow(kh, ktype, None, (0, 0), weights))
                continue
            of_type = self._type(ktype)
            digest = self._digest(of_type, key_id, value)
            nonce = nonces[at : at + _NONCE_BYTES]
            at += _NONCE_BYTES
            plain = _ID_LENGTH.pack(len(key_id)) + key_id + value
            box = header + nonce + encrypt(nonce, plain, aad + kh + digest + of_type.name)
            sealed.append(SealedRow(kh, ktype, box, _DIGEST.unpack(digest), weights))
        return sealed

    def find_all(self, rows: Iterable[tuple[str, bytes, object]]) -> list[bytes]:
        """`find` of many ``(type, id, …)``, of which those of a type mostly stand together."""
        khs = []
        known: str | None = None
        for ktype, key_id, _ in rows:
            if ktype != known:
                known, of_type = ktype, self._type(ktype)
                tag, copy = of_type.tag, of_type.finder.copy
            hashed = copy()
            hashed.update(key_id)
            khs.append(tag + hashed.digest())
        return khs

    def open_all(self, rows: Sequence[StoredRow]) -> list[Opened]:
        """Each row opened, in order, or Corrupt."""
        decrypt, aad, header = self._seal.decrypt, self._aad, self._header
        pack = _DIGEST.pack
        opened = []
        known, name = None, b""
        for row in rows:
            kh, ktype, sealed = row.kh, row.ktype, row.sealed
            if ktype != known:  # rows of a type stand together
                known, name = ktype, self._type(ktype).name
            if not sealed.startswith(header):
                raise Corrupt(ktype, kh.hex())
            try:
                plain = decrypt(
                    sealed[_HEADER_BYTES:_SEALED_AT], sealed[_SEALED_AT:], aad + kh + pack(*row.digest) + name
                )
            except (InvalidTag, ValueError):
                raise Corrupt(ktype, kh.hex()) from None
            end = _ID_LENGTH.size + ((plain[0] << 8) | plain[1])
            opened.append(Opened(ktype, plain[_ID_LENGTH.size : end], plain[end:]))
        return opened

    def open(self, ktype: str, kh: bytes, digest: tuple[int, int], sealed: bytes) -> tuple[bytes, bytes]:
        """``(id, value text)`` of a row, or Corrupt."""
        opened = self.open_all([StoredRow(kh, ktype, digest, sealed)])[0]
        return opened.key_id, opened.value

    def seal_entry(self, purpose: str, text: bytes) -> bytes:
        """Seals what is kept beside the rows (an entry, a session's origin); opens only for the same purpose."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._header + nonce + self._seal.encrypt(nonce, text, self._beside + purpose.encode())

    def open_entry(self, purpose: str, sealed: bytes) -> bytes:
        """What `seal_entry` sealed, or Corrupt."""
        try:
            if sealed[: _HEADER.size] != self._header:
                raise Corrupt(purpose, None)
            nonce, box = sealed[_HEADER.size : _SEALED_AT], sealed[_SEALED_AT:]
            return self._seal.decrypt(nonce, box, self._beside + purpose.encode())
        except (InvalidTag, ValueError):
            raise Corrupt(purpose, None) from None

    def weigh_entry(self, version: int, sealed: bytes) -> int:
        """The share of the mark that a journal's entry has while it waits, not yet reduced: its tag, weighed by its version."""
        first, second = _WORDS.unpack(self._weigh.update(_PLACE.pack(_JOURNAL, version)))
        high, low = _DIGEST.unpack_from(sealed, len(sealed) - _GCM_TAG_BYTES)
        share: int = (first >> 3) * high + (second >> 3) * low
        return share

    def mask(self, head: bytes) -> int:
        """The one-time number that hides the sum of rows; ``head`` is what the mark binds beside the rows."""
        return int.from_bytes(hashlib.blake2b(head, key=self._mask_key, digest_size=8).digest(), "big") >> 3

    def tag_identity(self, public_key: bytes) -> bytes:
        """A keyed hash (16 bytes) of the identity key: tells "the same" from "another" without holding it."""
        return hashlib.blake2b(public_key, key=self._digest_key, digest_size=16, person=b"identity").digest()

    def fingerprint(self, key: bytes, meaning: bytes) -> bytes:
        """What tells a replay from a reused Idempotency-Key (``key``, 16 bytes): 8 bytes of a GMAC of a request's meaning.

        Each key is its own nonce: two meanings under one are the very thing that is refused, and only the first is kept.
        """
        return self._asked.encrypt(key, b"", meaning)[:_FINGERPRINT_BYTES]

    def fingerprint_of_rows(self, meaning: bytes) -> bytes:
        """The same as releases before made it, of digests: a keyed hash."""
        return hashlib.blake2b(meaning, key=self._digest_key, digest_size=8, person=b"request").digest()

    def _type(self, ktype: str) -> _TypeKeys:
        known = self._types.get(ktype)
        if known is None:
            name = ktype.encode()
            tag = hashlib.blake2b(name, key=self._find_key, digest_size=TAG_BYTES, person=b"type").digest()
            finder = hashlib.blake2b(name + b"\0", key=self._find_key, digest_size=16)
            known = _TypeKeys(tag, name, finder)
            if len(self._types) < _TYPES_REMEMBERED:
                self._types[ktype] = known
        return known

    def _digest(self, of_type: _TypeKeys, key_id: bytes, value: bytes) -> bytes:
        hashed = self._digester.copy()
        hashed.update(_ID_LENGTH.pack(len(key_id)) + of_type.name + b"\0" + key_id + value)
        return hashed.digest()


def data_key_number(sealed: bytes) -> int | None:
    """Which data key a stored row says it is sealed under, None when it is no sealed row."""
    if len(sealed) < _SEALED_AT or sealed[0] != _FORMAT:
        return None
    number: int = _HEADER.unpack_from(sealed)[1]
    return number


def sealed_size(key_id: bytes, value: bytes) -> int:
    """How large a row's ``sealed`` is."""
    return _SEALED_AT + _ID_LENGTH.size + len(key_id) + len(value) + _GCM_TAG_BYTES


def weigh(weights: tuple[int, int], digest: tuple[int, int]) -> int:
    """A row's share of the mark, not yet reduced."""
    return weights[0] * digest[0] + weights[1] * digest[1]


def _fingerprint(key: bytes) -> str:
    return hmac.digest(key, b"authstore master key id", "sha256").hex()[:16]

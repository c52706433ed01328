"""Sealing: what opens, what does not, and that the stored form is the documented one."""

import hashlib
import hmac
import pickle
import struct
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import Corrupt, WrongMasterKey
from service.records import Identity, bind, remember
from service.vault import PRIME, MasterKeys, SessionVault, new_data_key, weigh, wrap_context

TENANT, SID, NUMBER, KEY = "tenant", bytes(range(16)), 0x01020304, bytes(range(100, 132))
TAG = bytes(range(1, 17))
ROWS: list[tuple[str, bytes, bytes | None]] = [
    ("session", b"needle@s.whatsapp.net", b'{"needle":1}'),
    ("pre-key", b"1", b"1"),
    ("pre-key", b"11", b""),
    ("", b"", b'{"creds":"needle"}'),
    ("t" * 64, b"i" * 512, b"v" * 70_000),
    ("\u00e9\U0001f600", "\u00e9\n".encode(), b"\xff\x00"),
]


@pytest.fixture
def vault() -> SessionVault:
    return SessionVault(TENANT, SID, NUMBER, KEY)


def subkeys() -> list[bytes]:
    """The keys as the module's docstring derives them: seal, find, digest, weight, mask."""
    keys = HKDF(SHA256(), 160, salt=None, info=b"authstore session keys 1").derive(KEY)
    return [keys[at : at + 32] for at in range(0, 160, 32)]


def opens(vault: SessionVault, row: Any, **other: Any) -> bool:
    given = {"ktype": row.ktype, "kh": row.kh, "digest": row.digest, "sealed": row.sealed, **other}
    try:
        vault.open(**given)
    except Corrupt as error:
        refused = error
    else:
        return True
    assert (refused.ktype, refused.row) == (given["ktype"], given["kh"].hex())
    assert "needle" not in str(refused)
    return False


def test_rows_come_out_as_they_went_in(vault: SessionVault):
    for (ktype, key_id, value), row in zip(ROWS, vault.seal_all(ROWS), strict=True):
        assert row.sealed is not None
        assert vault.open(ktype, row.kh, row.digest, row.sealed) == (key_id, value)
        assert row.kh == vault.find(ktype, key_id)
        assert b"needle" not in row.sealed
        assert len(row.sealed) == 1 + 4 + 12 + 2 + len(key_id) + len(value or b"") + 16


def test_the_stored_form_is_the_documented_one(vault: SessionVault):
    seal, find, digest_key, weight, mask = subkeys()
    for (ktype, key_id, value), row in zip(ROWS, vault.seal_all(ROWS), strict=True):
        assert row.sealed is not None
        assert value is not None
        type_tag = hashlib.blake2b(ktype.encode(), key=find, digest_size=8, person=b"type").digest()
        named = hashlib.blake2b(ktype.encode() + b"\0" + key_id, key=find, digest_size=16).digest()
        assert row.kh == type_tag + named
        text = len(key_id).to_bytes(2, "big") + ktype.encode() + b"\0" + key_id + value
        assert struct.pack(">qq", *row.digest) == hashlib.blake2b(text, key=digest_key, digest_size=16).digest()
        assert row.sealed[:5] == b"\x01" + NUMBER.to_bytes(4, "big")
        aad = b"authstore row 1\0" + TENANT.encode() + b"\0" + SID + NUMBER.to_bytes(4, "big")
        aad += row.kh + struct.pack(">qq", *row.digest) + ktype.encode()
        plain = AESGCM(seal).decrypt(row.sealed[5:17], row.sealed[17:], aad)
        assert plain == len(key_id).to_bytes(2, "big") + key_id + value
        block = Cipher(algorithms.AES(weight), modes.ECB()).encryptor().update(row.kh[8:])
        assert row.weights == tuple(word >> 3 for word in struct.unpack(">QQ", block))
    assert vault.mask(b"head") == int.from_bytes(hashlib.blake2b(b"head", key=mask, digest_size=8).digest(), "big") >> 3


def test_the_stored_form_stays(vault: SessionVault):
    """What a database of any release holds must be found and proven by every later one."""
    assert vault.find("session", b"a").hex() == "d7697692c4ecb70c1977b3645ff8d9413e0a7c7d0a01a400"
    assert vault.digest("session", b"a", b"1") == (-3652761308914777216, -3879170473617890954)
    assert vault.weights([vault.find("session", b"a")]) == [(2124901504012732838, 851625916397971090)]
    assert vault.mask(bind(7, NUMBER, b"", Identity(), None)) == 2186895416136748593
    assert vault.tag_identity(bytes(32)).hex() == "29bf6f326c14a4d1851897d5fdc3d619"
    assert vault.fingerprint_of_rows(b"ab").hex() == "41aab4f243274b38"
    assert vault.fingerprint(bytes(16), b"ab").hex() == "b3b1f34821541897"
    assert vault.weigh_entry(3, bytes(range(34))) == 4293008042358775756507554302124911586
    assert wrap_context(TENANT, SID, NUMBER) == b"authstore data key 1\0tenant\0" + SID + b"\x01\x02\x03\x04"
    assert (
        MasterKeys([KEY]).current
        == hmac.digest(KEY, b"authstore master key id", "sha256").hex()[:16]
        == "ab83a1243eb23389"
    )
    sealed = bytes.fromhex("010102030457ea50a41a874e0991900733f58bf8bfd4d2c83625f990f0799266a76c00278d")
    assert vault.open("session", vault.find("session", b"a"), vault.digest("session", b"a", b"1"), sealed) == (
        b"a",
        b"1",
    )
    wrapped = bytes.fromhex(
        "db335c727eba9696403862cb65eab4b53d74da9079ede125541724f3d612"
        "5ca0dbef50ccda8e29189ffbb94bd2453beddd75e0350bf2c018771003c5"
    )
    masters = MasterKeys([KEY])
    assert masters.unwrap(masters.current, wrapped, wrap_context(TENANT, SID, NUMBER)) == bytes(32)


def test_a_row_opens_nowhere_else(vault: SessionVault):
    rows = vault.seal_all(ROWS)
    for row in rows:
        assert opens(vault, row)
        others = [other for other in rows if other is not row]
        assert not any(opens(vault, row, kh=other.kh) for other in others)
        assert not any(opens(vault, row, digest=other.digest) for other in others)
        assert not any(opens(vault, row, sealed=other.sealed) for other in others)
        assert not any(opens(vault, row, sealed=other.sealed, digest=other.digest) for other in others)
        for ktype in ("session", "pre-key", "", "x"):
            assert opens(vault, row, ktype=ktype) is (ktype == row.ktype)
    for stranger in (
        SessionVault("tenant2", SID, NUMBER, KEY),
        SessionVault(TENANT, bytes(16), NUMBER, KEY),
        SessionVault(TENANT, SID, NUMBER + 1, KEY),
        SessionVault(TENANT, SID, NUMBER, bytes(32)),
    ):
        assert not any(opens(stranger, row) for row in rows)


def test_no_bit_can_change_and_nothing_can_be_cut(vault: SessionVault):
    row = vault.seal_all([("session", b"id", b'{"a":1}')])[0]
    assert row.sealed is not None
    for bit in range(len(row.sealed) * 8):
        changed = bytearray(row.sealed)
        changed[bit // 8] ^= 1 << bit % 8
        assert not opens(vault, row, sealed=bytes(changed))
    for end in range(len(row.sealed)):
        assert not opens(vault, row, sealed=row.sealed[:end])
        assert not opens(vault, row, sealed=row.sealed[end + 1 :])
    assert not opens(vault, row, sealed=row.sealed + b"\0")
    for bit in range(64):
        one = (1 << bit) - (1 << 64 if bit == 63 else 0)
        assert not opens(vault, row, digest=(row.digest[0] ^ one, row.digest[1]))
        assert not opens(vault, row, digest=(row.digest[0], row.digest[1] ^ one))


def test_the_same_value_is_never_sealed_the_same(vault: SessionVault):
    sealed = [row.sealed for _ in range(200) for row in vault.seal_all([("t", b"i", b"v"), ("t", b"i", b"v")])]
    assert len({each[5:17] for each in sealed if each}) == 400
    rows = vault.seal_all([("t", b"i", b"v")] * 2)
    assert (rows[0].kh, rows[0].digest, rows[0].weights) == (rows[1].kh, rows[1].digest, rows[1].weights)


def test_deletions_are_sealed_to_nothing(vault: SessionVault):
    row = vault.seal_all([("t", b"i", None)])[0]
    assert (row.sealed, row.digest, row.kh) == (None, (0, 0), vault.find("t", b"i"))


def test_names_run_into_each_other_nowhere(vault: SessionVault):
    names = [("a", b"bc"), ("ab", b"c"), ("abc", b""), ("", b"abc"), ("a", b"b\0c"), ("", b"")]
    assert len({vault.find(*name) for name in names}) == len(names)
    values = [(t, i, v) for t, i in names for v in (b"", b"x", b"bc", b"\0")]
    assert len({vault.digest(*value) for value in values}) == len(values)
    other = SessionVault(TENANT, SID, NUMBER, bytes(32))
    assert not {vault.find(*name) for name in names} & {other.find(*name) for name in names}


def test_types_begin_alike_and_only_they_do(vault: SessionVault):
    tags = {ktype: vault.type_tag(ktype) for ktype in [f"t{n}" for n in range(200)]}
    assert len(set(tags.values())) == 200
    for ktype, tag in tags.items():
        assert len(tag) == 8
        assert vault.find(ktype, b"x").startswith(tag)
        assert vault.type_tag(ktype) == tag


# -- marks -------------------------------------------------------------------------------------------------------------


def mark(vault: SessionVault, rows: dict[bytes, bytes], head: bytes) -> int:
    sealed = vault.seal_all([("t", key_id, value) for key_id, value in rows.items()])
    return (sum(weigh(row.weights, row.digest) for row in sealed) + vault.mask(head)) % PRIME


contents = st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=3), max_size=8)


@settings(deadline=None)
@given(before=contents, changes=st.dictionaries(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=3)))
def test_a_mark_that_is_moved_is_the_mark_of_the_whole(before: dict[bytes, bytes], changes: dict[bytes, bytes | None]):
    """As the database moves it: less the old rows' shares and mask, plus the new ones'."""
    vault = SessionVault(TENANT, SID, NUMBER, KEY)
    after = {name: value for name, value in {**before, **changes}.items() if value is not None}
    old = {row.kh: row for row in vault.seal_all([("t", name, value) for name, value in before.items()])}
    moved = mark(vault, before, b"1") - vault.mask(b"1") + vault.mask(b"2")
    for row in vault.seal_all([("t", name, value) for name, value in changes.items()]):
        if row.kh in old:
            moved -= weigh(row.weights, old[row.kh].digest)
        if row.sealed is not None:
            moved += weigh(row.weights, row.digest)
    assert moved % PRIME == mark(vault, after, b"2")
    assert (after == before) or mark(vault, after, b"1") != mark(vault, before, b"1")


def test_everything_a_head_binds_moves_the_mask(vault: SessionVault):
    entry = (UUID(int=1).bytes, bytes(8), 1)
    identity = Identity(TAG, True, (1, 2, 3, 4))
    base = (7, NUMBER, remember(b"", *entry), identity, None)
    heads = [
        base,
        (8, *base[1:]),
        (7, NUMBER + 1, *base[2:]),
        (7, NUMBER, b"", identity, None),
        (7, NUMBER, remember(base[2], *entry), identity, None),
        (*base[:3], Identity(None, True, (1, 2, 3, 4)), None),
        (*base[:3], Identity(TAG, False, (1, 2, 3, 4)), None),
        *((*base[:3], Identity(TAG, True, (*(1, 2, 3, 4)[:n], None, *(1, 2, 3, 4)[n + 1 :])), None) for n in range(4)),
        *((*base[:4], top) for top in (-1, 0, 812)),
    ]
    assert len({vault.mask(bind(*head)) for head in heads}) == len(heads)


# -- keys --------------------------------------------------------------------------------------------------------------


def test_data_keys_are_wrapped_for_one_session():
    masters, context = MasterKeys([KEY]), wrap_context(TENANT, SID, NUMBER)
    key_id, wrapped = masters.wrap(bytes(32), context)
    assert (key_id, len(wrapped)) == (masters.current, 60)
    assert masters.unwrap(key_id, wrapped, context) == bytes(32)
    for other in (
        wrap_context("other", SID, NUMBER),
        wrap_context(TENANT, KEY[:16], NUMBER),
        wrap_context(TENANT, SID, 5),
    ):
        with pytest.raises(Corrupt):
            masters.unwrap(key_id, wrapped, other)
    for bit in range(len(wrapped) * 8):
        changed = bytearray(wrapped)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            masters.unwrap(key_id, bytes(changed), context)
    with pytest.raises(WrongMasterKey):
        MasterKeys([bytes(32)]).unwrap(key_id, wrapped, context)


def test_the_first_master_key_wraps_and_all_open():
    old, new, context = MasterKeys([KEY]), MasterKeys([bytes(32), KEY]), wrap_context(TENANT, SID, NUMBER)
    key_id, wrapped = old.wrap(bytes(32), context)
    assert new.unwrap(key_id, wrapped, context) == bytes(32)
    assert new.wrap(bytes(32), context)[0] == new.current != old.current
    assert new.ids() == {new.current, old.current}


def test_master_keys_are_read_again():
    now = [KEY]
    masters = MasterKeys(now, lambda: now)
    assert not masters.refresh()
    now = [bytes(32), KEY]
    before = masters.current
    assert masters.refresh()
    assert masters.current != before
    assert not masters.missing({before, masters.current})
    assert masters.missing({"0" * 16}) == {"0" * 16}


def test_a_key_that_is_not_configured_any_more_opens_until_it_is_forgotten():
    now, context = [KEY], wrap_context(TENANT, SID, NUMBER)
    masters = MasterKeys(now, lambda: now)
    key_id, wrapped = masters.wrap(bytes(32), context)
    now = [bytes(32)]
    assert masters.refresh()
    assert masters.missing({key_id}) == {key_id}
    assert masters.ids() == {masters.current} != {key_id}
    assert masters.unwrap(key_id, wrapped, context) == bytes(32)
    masters.forget()
    with pytest.raises(WrongMasterKey):
        masters.unwrap(key_id, wrapped, context)


@pytest.mark.parametrize("keys", [[], [b""], [bytes(31)], [bytes(33)], [KEY, bytes(16)]])
def test_master_keys_of_another_length_are_refused(keys: list[bytes]):
    with pytest.raises(WrongMasterKey):
        MasterKeys(keys)


def test_data_keys_are_random_and_their_numbers_fit_the_column():
    made = [new_data_key() for _ in range(500)]
    assert len({key for _, key in made}) == 500
    assert all(0 <= number < 1 << 31 and len(key) == 32 for number, key in made)
    assert len({number for number, _ in made}) > 495


def test_key_material_is_not_shown_and_not_pickled(vault: SessionVault):
    masters = MasterKeys([KEY])
    row = vault.seal_all([("t", b"needle", b"needle")])[0]
    for thing in (vault, masters):
        assert str(KEY) not in f"{thing!r}{thing}"
        assert KEY.hex() not in f"{thing!r}{thing}"
        with pytest.raises((TypeError, pickle.PicklingError)):
            pickle.dumps(thing)
    assert "needle" not in repr(row)


def test_entries_open_for_their_purpose_alone(vault: SessionVault):
    sealed = vault.seal_entry("mirror 7", b"needle")
    assert vault.open_entry("mirror 7", sealed) == b"needle"
    row = vault.seal_all([("mirror 7", b"", b"needle")])[0]
    for purpose, text in (
        ("mirror 8", sealed),
        ("mirror 7", sealed[:-1]),
        ("mirror 7", row.sealed or b""),
        ("mirror 7", b""),
    ):
        with pytest.raises(Corrupt):
            vault.open_entry(purpose, text)
    with pytest.raises(Corrupt):
        vault.open("mirror 7", row.kh, row.digest, sealed)

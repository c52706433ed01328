"""The grammar of names: what is taken is taken as it is, everything else is refused without being shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadName
from protocol.types import check_id, check_session_name, check_tenant, check_type, session_uuid

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
RESOLVED_AWAY = {".", ".."}


def is_taken(check: object, text: str) -> bool:
    try:
        taken = check(text)  # type: ignore[operator]
    except BadName as error:
        said = str(error)
    else:
        assert taken in {text, text.encode()}
        return True
    assert "needle" not in said
    return False


@given(st.text(ALPHABET + "._:@+-", min_size=1, max_size=128))
def test_session_names(text: str):
    assert is_taken(check_session_name, text) is (text not in RESOLVED_AWAY)


@given(st.text(max_size=140))
def test_other_session_names(text: str):
    assert is_taken(check_session_name, text) is (
        1 <= len(text) <= 128 and set(text) <= set(ALPHABET + "._:@+-") and text not in RESOLVED_AWAY
    )


@given(st.text(max_size=70))
def test_tenants(text: str):
    assert is_taken(check_tenant, text) is (1 <= len(text) <= 64 and set(text) <= set(ALPHABET + "._-"))


@given(st.text(st.characters(), max_size=70))
def test_types(text: str):
    well = all(not 0xD800 <= ord(c) <= 0xDFFF and c != "\0" for c in text)
    assert is_taken(check_type, text) is (1 <= len(text) <= 64 and well)


@given(st.text(st.characters(), max_size=200))
def test_ids(text: str):
    well = all(not 0xD800 <= ord(c) <= 0xDFFF and c != "\0" for c in text)
    assert is_taken(check_id, text) is (well and 1 <= len(text.encode(errors="replace")) <= 512)


@pytest.mark.parametrize(
    ("check", "text", "taken"),
    [
        (check_session_name, ".", False),
        (check_session_name, "..", False),
        (check_session_name, "...", True),
        (check_session_name, "needle\n", False),
        (check_session_name, "needle ", False),
        (check_session_name, "n\u0435edle", False),
        (check_session_name, "\uff11", False),
        (check_session_name, "a" * 129, False),
        (check_tenant, "needle/a", False),
        (check_tenant, "needle\n", False),
        (check_type, "t" * 64, True),
        (check_type, "\U0001f600" * 64, True),
        (check_type, "t" * 65, False),
        (check_type, "needle\0", False),
        (check_id, "é" * 256, True),
        (check_id, "é" * 257, False),
        (check_id, "\U0001f600" * 128, True),
        (check_id, "\U0001f600" * 128 + "a", False),
        (check_id, "needle\ud800", False),
        (check_id, "../..", True),
    ],
)
def test_edges(check: object, text: str, taken: bool):
    assert is_taken(check, text) is taken


def test_sessions_have_uuids_of_their_own():
    names = ["a", "b", "a-b", "A", "a.", "_", "a" * 128]
    tenants = ["a", "b", "a-b", "A", "default"]
    assert len({session_uuid(tenant, name) for tenant in tenants for name in names}) == len(names) * len(tenants)
    # Every row of every database begins with it: it stays for good.
    assert str(session_uuid("default", "my-phone")) == "4b40081a-6093-5c40-9252-1608af9cc595"

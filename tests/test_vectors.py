"""The vectors of `fixtures/vectors`: what we say of them, and what libsignal and Baileys say."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import states

from protocol.adv import check_account, check_device, parse_account
from protocol.checks import StateCheck
from protocol.curve import check_pair, prefixed, verify
from protocol.errors import BadKeyPair, BadSignature
from protocol.lthash import lthash

FOLDER = Path(__file__).parent.parent / "fixtures" / "vectors"


def read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_bytes())


def data(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def named(vectors: list[Any]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


@named(read("curve")["pairs"])
def test_a_pair(vector: Any):
    private, public = data(vector["private"]), data(vector["public"])
    if vector["valid"]:
        check_pair(private, public)
    else:
        with pytest.raises(BadKeyPair):
            check_pair(private, public)


@named(read("curve")["signatures"])
def test_a_signature(vector: Any):
    public, message, signature = (data(vector[name]) for name in ("public", "message", "signature"))
    if vector["valid"]:
        verify(public, message, signature)
    else:
        with pytest.raises(BadSignature):
            verify(public, message, signature)


@named(read("adv")["accounts"])
def test_an_account(vector: Any):
    account, identity = parse_account(vector["account"]), data(vector["identity"])
    for check, valid in ((check_account, vector["phone"]), (check_device, vector["device"])):
        if valid:
            check(account, identity)
        else:
            with pytest.raises(BadSignature):
                check(account, identity)
    if vector["phone"]:
        assert account.hosted == vector["hosted"]


@pytest.mark.parametrize("kind", ["plain", "hosted"])
def test_creds_of_an_account_have_no_finding_but_their_own(kind: str):
    """The whole way: creds that Baileys paired with this account, plain or hosted, are judged like any others."""
    vector = next(each for each in read("adv")["accounts"] if each["name"] == kind)
    creds = states.load("7.0.0-rc14")["creds"]
    creds["account"] = vector["account"]
    key = base64.b64encode(prefixed(data(vector["account"]["accountSignatureKey"]))).decode()
    creds["signalIdentities"][0]["identifierKey"] = {"type": "Buffer", "data": key}
    mixed = {each.rule for each in StateCheck().creds(states.text(creds))}
    assert mixed == {"account-signature"}  # creds of two pairings
    creds["signedIdentityKey"]["public"] = {"type": "Buffer", "data": vector["identity"]}
    told = {each.rule for each in StateCheck().creds(states.text(creds))}
    assert told == {"creds-key-pair"}  # ours is the public half alone


@named(read("lthash")["collections"])
def test_a_collection(vector: Any):
    assert (lthash(map(data, vector["macs"])) == data(vector["hash"])) is vector["valid"]


def judged(ktype: str, key_id: str, record: Any) -> list[str]:
    check = StateCheck()
    list(check.creds(states.text({"me": read("records")["me"]})))
    return [each.rule for each in check.row(ktype, key_id, states.text(record))]


@named(read("records")["sessions"])
def test_a_session_record(vector: Any):
    assert judged("session", "100000000000000_1.0", vector["record"]) == vector["rules"]


@named(read("records")["senderKeys"])
def test_a_sender_key_record(vector: Any):
    assert judged("sender-key", vector["id"], vector["record"]) == vector["rules"]


def test_libsignal_and_baileys_say_the_same():
    node = subprocess.run(
        ["node", "confirm.mjs"],
        cwd=FOLDER,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        timeout=120,
        check=False,
    )
    told = json.loads(node.stdout)
    assert told["otherwise"] == []
    assert told["asked"] > 200
    assert node.returncode == 0

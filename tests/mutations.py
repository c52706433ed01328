"""What breaks a session in one place, and the finding that must tell it: the table behind `test_checks_mutations.py`.

Each change starts from the state of a real release. Where a release is not named, any will do.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

State = dict[str, Any]
Change = Callable[[State], None]
LATEST = "7.0.0-rc14"
GROUP = "120363000000001000@g.us"


@dataclass(frozen=True)
class Mutation:
    """``tells``: rules and the types they must name, as many as there must be."""

    name: str
    change: Change
    tells: tuple[tuple[str, str], ...]
    release: str = LATEST


TABLE: list[Mutation] = []


def breaks(*tells: str, release: str = LATEST) -> Callable[[Change], Change]:
    """Registers a change; ``tells`` are ``rule type`` pairs."""

    def register(change: Change) -> Change:
        pairs = tuple((tell.split()[0], tell.split()[1] if " " in tell else "") for tell in tells)
        TABLE.append(Mutation(change.__name__.replace("_", " "), change, pairs, release))
        return change

    return register


# Small tools: values are changed in place.


def buffer(data: bytes) -> dict[str, str]:
    return {"type": "Buffer", "data": base64.b64encode(data).decode()}


def raw(value: Any) -> bytes:
    text = value["data"] if isinstance(value, dict) else value
    return bytes(text) if isinstance(text, list) else base64.b64decode(text)


def flipped(value: Any, bit: int = 100) -> Any:
    """The same bytes with one bit turned over, in the same spelling."""
    data = bytearray(raw(value))
    data[bit // 8] ^= 1 << bit % 8
    text = base64.b64encode(data).decode()
    if isinstance(value, str):
        return text
    return {"type": "Buffer", "data": list(data) if isinstance(value["data"], list) else text}


def flip(holder: Any, name: Any, bit: int = 100) -> None:
    holder[name] = flipped(holder[name], bit)


def some(state: State, ktype: str, at: int = 0) -> tuple[str, Any]:
    """One ``(id, value)`` of a type, always the same one."""
    return sorted(state["keys"][ktype].items())[at]


def session(state: State) -> tuple[str, Any]:
    """A session of one state that sent and received, and that state."""
    for key_id, record in sorted(state["keys"]["session"].items()):
        (found, *more) = record["_sessions"].values()
        if not more and len(found["_chains"]) == 2:
            return key_id, found
    raise AssertionError("no such session")


def initiated(state: State) -> Any:
    """A state that began with our message and was not answered yet."""
    for record in state["keys"]["session"].values():
        for found in record["_sessions"].values():
            if "pendingPreKey" in found and found["indexInfo"]["closed"] == -1:
                return found
    raise AssertionError("no such session")


def chain(state: Any, kind: int) -> Any:
    return next(each for each in state["_chains"].values() if each["chainType"] == kind)


def own_name(state: State) -> str:
    return next(key_id for key_id in state["keys"]["sender-key"] if "0002" in key_id.split("::")[1])


def other_name(state: State) -> str:
    return next(key_id for key_id in sorted(state["keys"]["sender-key"]) if "0000_" in key_id or "0000::" in key_id)


def edit_record(state: State, key_id: str, change: Callable[[list[Any]], None]) -> None:
    """Changes the states inside a sender key record."""
    states = json.loads(raw(state["keys"]["sender-key"][key_id]))
    change(states)
    state["keys"]["sender-key"][key_id] = buffer(json.dumps(states).encode())


def collection(state: State) -> Any:
    return state["keys"]["app-state-sync-version"]["regular_low"]


# Creds


@breaks("creds-key-pair creds")
def a_bit_of_the_noise_private_key(state: State) -> None:
    flip(state["creds"]["noiseKey"], "private")


@breaks("creds-key-pair creds")
def a_bit_of_the_noise_public_key(state: State) -> None:
    flip(state["creds"]["noiseKey"], "public")


@breaks("creds-key-pair creds", release="6.7.24")
def a_bit_of_the_identity_private_key(state: State) -> None:
    flip(state["creds"]["signedIdentityKey"], "private")


@breaks("creds-key-pair creds")
def a_bit_of_the_identity_public_key(state: State) -> None:
    flip(state["creds"]["signedIdentityKey"], "public")


@breaks("creds-key-pair creds", release="7.0.0-rc.4")
def the_top_bit_of_the_identity_public_key(state: State) -> None:
    flip(state["creds"]["signedIdentityKey"], "public", 255)


@breaks("creds-key-pair creds", release="7.0.0-rc.9")
def a_bit_of_the_pairing_private_key(state: State) -> None:
    flip(state["creds"]["pairingEphemeralKeyPair"], "private")


@breaks("creds-key-pair creds")
def a_bit_of_the_signed_pre_keys_private_half(state: State) -> None:
    flip(state["creds"]["signedPreKey"]["keyPair"], "private")


@breaks("creds-key-pair creds", release="6.17.16")
def a_bit_of_the_signed_pre_keys_public_half(state: State) -> None:
    flip(state["creds"]["signedPreKey"]["keyPair"], "public")


@breaks("key-unclamped creds")
def a_bit_that_x25519_ignores(state: State) -> None:
    flip(state["creds"]["noiseKey"], "private", 0)


@breaks("creds-key-pair creds")
def a_noise_key_one_byte_short(state: State) -> None:
    state["creds"]["noiseKey"]["private"] = buffer(raw(state["creds"]["noiseKey"]["private"])[:-1])


@breaks("creds-key-pair creds")
def no_noise_key(state: State) -> None:
    del state["creds"]["noiseKey"]


@breaks("signed-pre-key-signature creds")
def a_bit_of_the_signed_pre_keys_signature(state: State) -> None:
    flip(state["creds"]["signedPreKey"], "signature", 300)


@breaks("signed-pre-key-signature creds", release="6.7.24")
def a_signed_pre_keys_signature_of_zeros(state: State) -> None:
    state["creds"]["signedPreKey"]["signature"] = buffer(bytes(64))


@breaks("registration-id creds")
def a_registration_id_of_15_bits(state: State) -> None:
    state["creds"]["registrationId"] = 16384


@breaks("registration-id creds", release="7.0.0-rc10")
def a_registration_id_as_text(state: State) -> None:
    state["creds"]["registrationId"] = str(state["creds"]["registrationId"])


@breaks("adv-secret creds")
def an_adv_secret_of_31_bytes(state: State) -> None:
    state["creds"]["advSecretKey"] = base64.b64encode(bytes(31)).decode()


@breaks("account-signature creds")
def a_bit_of_the_account_signature(state: State) -> None:
    flip(state["creds"]["account"], "accountSignature", 17)


@breaks("account-signature creds", release="7.0.0-rc.4")
def a_bit_of_the_account_key(state: State) -> None:
    flip(state["creds"]["account"], "accountSignatureKey", 17)


@breaks("account-signature creds", release="6.17.16")
def a_bit_of_the_account_details(state: State) -> None:
    flip(state["creds"]["account"], "details", 25)


@breaks("device-signature creds")
def a_bit_of_the_device_signature(state: State) -> None:
    flip(state["creds"]["account"], "deviceSignature", 17)


@breaks("device-signature creds", release="6.7.24")
def a_device_signature_of_zeros(state: State) -> None:
    state["creds"]["account"]["deviceSignature"] = base64.b64encode(bytes(64)).decode()


@breaks("account-unreadable creds")
def no_account_signature(state: State) -> None:
    del state["creds"]["account"]["accountSignature"]


@breaks("signal-identity creds")
def a_bit_of_the_signal_identity(state: State) -> None:
    flip(state["creds"]["signalIdentities"][0], "identifierKey")


@breaks("me-missing creds")
def no_me(state: State) -> None:
    del state["creds"]["me"]


@breaks("me-id creds")
def an_own_address_that_is_none(state: State) -> None:
    state["creds"]["me"]["id"] = "garbage"


@breaks("account-missing creds")
def no_account(state: State) -> None:
    del state["creds"]["account"]


@breaks("account-missing creds", release="6.7.24")
def neither_account_nor_me(state: State) -> None:
    del state["creds"]["account"], state["creds"]["me"]


@breaks("routing-info creds")
def routing_info_of_text(state: State) -> None:
    state["creds"]["routingInfo"] = "CA0IAg=="


@breaks("routing-info creds", release="6.17.16")
def routing_info_of_a_number(state: State) -> None:
    state["creds"]["routingInfo"] = {"type": "Buffer", "data": 5}


@breaks("creds-key-pair creds")
def a_noise_key_with_a_type_byte(state: State) -> None:
    pair = state["creds"]["noiseKey"]
    pair["public"] = buffer(b"\x05" + raw(pair["public"]))


@breaks("counter creds")
def no_next_pre_key_id(state: State) -> None:
    del state["creds"]["nextPreKeyId"]


@breaks("counter creds")
def a_key_id_that_is_no_number(state: State) -> None:
    state["creds"]["signedPreKey"]["keyId"] = "1"


@breaks("counter-range creds")
def a_next_pre_key_id_of_25_bits(state: State) -> None:
    state["creds"]["nextPreKeyId"] = 1 << 24


@breaks("counter-range creds", release="6.7.24")
def a_first_unuploaded_pre_key_id_of_25_bits(state: State) -> None:
    state["creds"]["firstUnuploadedPreKeyId"] = 1 << 24


@breaks("counter-range creds")
def a_signed_pre_key_id_of_41_bits(state: State) -> None:
    state["creds"]["signedPreKey"]["keyId"] = 1 << 40


@breaks("bytes-spelling creds")
def creds_with_bytes_as_a_list(state: State) -> None:
    pair = state["creds"]["noiseKey"]
    pair["public"] = {"type": "Buffer", "data": list(raw(pair["public"]))}


@breaks("bytes-spelling creds", release="6.7.24")
def creds_with_bytes_as_an_object(state: State) -> None:
    pair = state["creds"]["noiseKey"]
    pair["public"] = {str(at): octet for at, octet in enumerate(raw(pair["public"]))}


# Pre-keys


@breaks("pre-key-pair pre-key")
def a_bit_of_a_pre_keys_private_half(state: State) -> None:
    flip(some(state, "pre-key")[1], "private")


@breaks("pre-key-pair pre-key", release="6.17.16")
def a_bit_of_a_pre_keys_public_half(state: State) -> None:
    flip(some(state, "pre-key")[1], "public")


@breaks("key-unclamped pre-key")
def a_bit_of_a_pre_key_that_x25519_ignores(state: State) -> None:
    flip(some(state, "pre-key")[1], "private", 254)


@breaks("pre-key-unreadable pre-key")
def a_pre_key_without_its_public_half(state: State) -> None:
    del some(state, "pre-key")[1]["public"]


@breaks("bytes-spelling pre-key")
def a_pre_key_with_bytes_as_a_list(state: State) -> None:
    pair = some(state, "pre-key")[1]
    pair["private"] = {"type": "Buffer", "data": list(raw(pair["private"]))}


@breaks("pre-key-beyond-counter creds")
def creds_older_than_the_pre_keys(state: State) -> None:
    state["creds"]["nextPreKeyId"] = state["creds"]["firstUnuploadedPreKeyId"] = 5


@breaks("pre-key-beyond-counter creds", release="6.7.24")
def only_one_counter_older_than_the_pre_keys(state: State) -> None:
    state["creds"]["nextPreKeyId"] -= 1


@breaks("pre-keys-gone creds")
def no_pre_keys(state: State) -> None:
    del state["keys"]["pre-key"]


@breaks("pre-key-newest-missing pre-key")
def no_newest_pre_key(state: State) -> None:
    del state["keys"]["pre-key"][str(state["creds"]["nextPreKeyId"] - 1)]


@breaks("first-unuploaded-beyond-next creds")
def more_uploaded_than_made(state: State) -> None:
    state["creds"]["firstUnuploadedPreKeyId"] += 7


@breaks("unuploaded-missing creds", release="7.0.0-rc.4")
def a_pre_key_gone_before_its_upload(state: State) -> None:
    state["creds"]["firstUnuploadedPreKeyId"] -= 5
    del state["keys"]["pre-key"][str(state["creds"]["nextPreKeyId"] - 3)]


@breaks("pre-key-id pre-key")
def a_pre_key_of_25_bits(state: State) -> None:
    state["keys"]["pre-key"][str(1 << 24)] = some(state, "pre-key")[1]


@breaks("id-grammar pre-key")
def a_pre_key_under_a_word(state: State) -> None:
    state["keys"]["pre-key"]["newest"] = some(state, "pre-key")[1]


# Sessions


@breaks("session-unreadable session")
def a_session_without_states(state: State) -> None:
    del state["keys"]["session"][some(state, "session")[0]]["_sessions"]


@breaks("session-unknown-form session")
def a_session_of_bytes(state: State) -> None:
    state["keys"]["session"][session(state)[0]] = buffer(b"\x0a\x20" + bytes(40))


@breaks("session-legacy session", release="6.7.24")
def a_session_without_version(state: State) -> None:
    del state["keys"]["session"][session(state)[0]]["version"]


@breaks("session-version session")
def a_session_of_another_version(state: State) -> None:
    state["keys"]["session"][session(state)[0]]["version"] = "v2"


@breaks("session-index session", release="6.17.16")
def a_base_key_that_is_not_the_states(state: State) -> None:
    flip(session(state)[1]["indexInfo"], "baseKey")


@breaks("session-index session")
def a_base_key_of_nobody(state: State) -> None:
    session(state)[1]["indexInfo"]["baseKeyType"] = 3


@breaks("session-index session")
def a_state_closed_at_no_time(state: State) -> None:
    session(state)[1]["indexInfo"]["closed"] = None


@breaks("session-ratchet session")
def a_root_key_of_31_bytes(state: State) -> None:
    ratchet = session(state)[1]["currentRatchet"]
    ratchet["rootKey"] = base64.b64encode(raw(ratchet["rootKey"])[1:]).decode()


@breaks("session-ratchet session", release="6.7.24")
def no_ratchet(state: State) -> None:
    del session(state)[1]["currentRatchet"]


@breaks("session-ratchet-pair session")
def a_bit_of_the_ratchets_private_key(state: State) -> None:
    flip(session(state)[1]["currentRatchet"]["ephemeralKeyPair"], "privKey")


@breaks("session-ratchet-pair session", release="6.17.16")
def a_bit_of_the_ratchets_public_key(state: State) -> None:
    flip(session(state)[1]["currentRatchet"]["ephemeralKeyPair"], "pubKey")


@breaks("session-remote-ratchet session")
def a_bit_of_the_contacts_ratchet_key(state: State) -> None:
    flip(session(state)[1]["currentRatchet"], "lastRemoteEphemeralKey")


@breaks("session-sending-chain session")
def no_sending_chain(state: State) -> None:
    found = session(state)[1]
    del found["_chains"][found["currentRatchet"]["ephemeralKeyPair"]["pubKey"]]


@breaks("session-sending-chain session", release="7.0.0-rc.9")
def a_sending_chain_without_key(state: State) -> None:
    del chain(session(state)[1], 1)["chainKey"]["key"]


@breaks("session-sending-chain session", release="6.7.24")
def a_sending_chain_that_receives(state: State) -> None:
    chain(session(state)[1], 1)["chainType"] = 2


@breaks("session-chain session")
def a_chain_of_no_kind(state: State) -> None:
    chain(session(state)[1], 2)["chainType"] = 0


@breaks("session-chain session")
def a_chain_counter_below_the_first(state: State) -> None:
    chain(session(state)[1], 2)["chainKey"]["counter"] = -2


@breaks("session-chain session", release="7.0.0-rc10")
def a_chain_key_of_16_bytes(state: State) -> None:
    chain(session(state)[1], 2)["chainKey"]["key"] = base64.b64encode(bytes(16)).decode()


@breaks("session-chain session")
def a_message_key_of_a_message_to_come(state: State) -> None:
    found = chain(session(state)[1], 2)
    found["messageKeys"] = {str(found["chainKey"]["counter"] + 1): base64.b64encode(bytes(32)).decode()}


@breaks("session-chain session", release="6.17.16")
def a_message_key_of_31_bytes(state: State) -> None:
    chain(session(state)[1], 2)["messageKeys"] = {"0": base64.b64encode(bytes(31)).decode()}


@breaks("session-chain session")
def a_receiving_chain_that_sends(state: State) -> None:
    chain(session(state)[1], 2)["chainType"] = 1


@breaks("session-chain session", release="6.7.24")
def the_contacts_current_chain_closed(state: State) -> None:
    del chain(session(state)[1], 2)["chainKey"]["key"]


@breaks("session-index session")
def a_remote_identity_without_its_type(state: State) -> None:
    index = session(state)[1]["indexInfo"]
    index["remoteIdentityKey"] = base64.b64encode(raw(index["remoteIdentityKey"])[1:]).decode()


@breaks("session-pending-pre-key session", release="7.0.0-rc.4")
def no_pending_pre_key_and_no_answer(state: State) -> None:
    del initiated(state)["pendingPreKey"]


@breaks("session-pending-pre-key session")
def a_pending_base_key_of_another_session(state: State) -> None:
    flip(initiated(state)["pendingPreKey"], "baseKey")


@breaks("session-pending-pre-key session")
def a_pending_pre_key_without_signed_pre_key(state: State) -> None:
    del initiated(state)["pendingPreKey"]["signedKeyId"]


@breaks("session-registration session", release="6.7.24")
def an_open_session_without_registration(state: State) -> None:
    del session(state)[1]["registrationId"]


@breaks("session-open-states session")
def no_open_state(state: State) -> None:
    session(state)[1]["indexInfo"]["closed"] = 1_700_000_000_000


@breaks("session-open-states session")
def two_open_states(state: State) -> None:
    for record in state["keys"]["session"].values():
        closed = [each for each in record["_sessions"].values() if each["indexInfo"]["closed"] != -1]
        if closed:
            closed[0]["indexInfo"]["closed"] = -1
            return
    raise AssertionError("no closed state")


@breaks("session-states session")
def forty_two_states(state: State) -> None:
    record = state["keys"]["session"][session(state)[0]]
    (_, first), *_ = record["_sessions"].items()
    for number in range(41):
        base_key = base64.b64encode(b"\x05" + number.to_bytes(32, "big")).decode()
        index = first["indexInfo"] | {"baseKey": base_key, "closed": 1_700_000_000_000 + number}
        record["_sessions"][base_key] = first | {"indexInfo": index}


@breaks("session-chains session", release="6.7.24")
def five_hundred_chains(state: State) -> None:
    found = session(state)[1]
    for number in range(500):
        address = base64.b64encode(b"\x05" + number.to_bytes(32, "big")).decode()
        found["_chains"][address] = {"chainKey": {"counter": 0}, "chainType": 2, "messageKeys": {}}


@breaks("session-orphan session")
def a_session_left_under_the_phone_number(state: State) -> None:
    key_id, _ = session(state)
    user, device = key_id.split(".")
    phone = state["keys"]["lid-mapping"][f"{user.removesuffix('_1')}_reverse"]
    state["keys"]["session"][f"{phone}.{device}"] = state["keys"]["session"][key_id]


@breaks("id-grammar session")
def a_session_under_a_jid(state: State) -> None:
    state["keys"]["session"]["15550109999@s.whatsapp.net"] = state["keys"]["session"][session(state)[0]]


@breaks("identity-key-mismatch identity-key")
def a_contact_with_a_new_identity(state: State) -> None:
    key_id, value = some(state, "identity-key")
    state["keys"]["identity-key"][key_id] = flipped(value)


@breaks("identity-key-unreadable identity-key", release="7.0.0-rc10")
def an_identity_key_without_its_type(state: State) -> None:
    key_id, value = some(state, "identity-key")
    state["keys"]["identity-key"][key_id] = buffer(raw(value)[1:])


# Sender keys


@breaks("sender-key-unreadable sender-key")
def a_sender_key_of_no_json(state: State) -> None:
    state["keys"]["sender-key"][other_name(state)] = buffer(b"[{")


@breaks("sender-key-unreadable sender-key", release="6.17.16")
def a_sender_key_state_without_id(state: State) -> None:
    del state["keys"]["sender-key"][other_name(state)][0]["senderKeyId"]


@breaks("sender-key-states sender-key")
def six_sender_key_states(state: State) -> None:
    edit_record(state, other_name(state), lambda states: states.extend(states * 5))


@breaks("sender-key-chain sender-key")
def a_sender_key_seed_of_31_bytes(state: State) -> None:
    edit_record(state, other_name(state), lambda states: states[0]["senderChainKey"].update(seed=buffer(bytes(31))))


@breaks("sender-key-chain sender-key", release="6.7.24")
def a_sender_key_iteration_below_zero(state: State) -> None:
    edit_record(state, other_name(state), lambda states: states[0]["senderChainKey"].update(iteration=-1))


@breaks("sender-key-message-keys sender-key")
def a_skipped_key_of_a_message_to_come(state: State) -> None:
    key = {"iteration": 1000, "seed": buffer(bytes(32))}
    edit_record(state, other_name(state), lambda states: states[0]["senderMessageKeys"].append(key))


@breaks("sender-key-pair sender-key")
def a_bit_of_ones_own_signing_key(state: State) -> None:
    edit_record(state, own_name(state), lambda states: flip(states[0]["senderSigningKey"], "private"))


@breaks("sender-key-pair sender-key", release="7.0.0-rc.9")
def a_bit_of_ones_own_public_signing_key(state: State) -> None:
    edit_record(state, own_name(state), lambda states: flip(states[0]["senderSigningKey"], "public"))


@breaks("own-sender-key-private sender-key")
def ones_own_signing_key_without_private_half(state: State) -> None:
    edit_record(state, own_name(state), lambda states: states[0]["senderSigningKey"].update(private=buffer(b"")))


@breaks("sender-key-legacy sender-key")
def a_sender_key_as_a_list(state: State) -> None:
    keys = state["keys"]["sender-key"]
    keys[other_name(state)] = json.loads(raw(keys[other_name(state)]))


@breaks("sender-key-legacy sender-key", "sender-key-lost-keys sender-key")
def a_sender_key_as_a_list_with_lost_keys(state: State) -> None:
    keys = state["keys"]["sender-key"]
    keys[other_name(state)] = json.loads(raw(keys[other_name(state)]))
    keys[other_name(state)][0]["senderMessageKeys"].append({})


@breaks("sender-key-foreign-private sender-key")
def anothers_sender_key_with_private_half(state: State) -> None:
    own = json.loads(raw(state["keys"]["sender-key"][own_name(state)]))[0]["senderSigningKey"]
    edit_record(state, other_name(state), lambda states: states[0].update(senderSigningKey=own))


@breaks("sender-key-growth sender-key")
def an_own_sender_key_with_600_message_keys(state: State) -> None:
    def grow(states: list[Any]) -> None:
        states[0]["senderChainKey"]["iteration"] = 2000
        states[0]["senderMessageKeys"] = [{"iteration": at, "seed": buffer(bytes(32))} for at in range(600)]

    edit_record(state, own_name(state), grow)


@breaks("id-grammar sender-key")
def a_memory_filed_as_a_sender_key(state: State) -> None:
    state["keys"]["sender-key"][f"memory-{GROUP}"] = state["keys"]["sender-key"][other_name(state)]


@breaks("sender-key-memory-stale sender-key-memory")
def no_sender_key_of_ones_own(state: State) -> None:
    del state["keys"]["sender-key"][own_name(state)]


@breaks("sender-key-memory-stale sender-key-memory", release="6.17.16")
def an_empty_sender_key_of_ones_own(state: State) -> None:
    state["keys"]["sender-key"][own_name(state)] = []


@breaks("sender-key-memory-unreadable sender-key-memory")
def a_memory_that_is_a_list(state: State) -> None:
    state["keys"]["sender-key-memory"][GROUP] = ["15550100000@s.whatsapp.net"]


# App state, addresses, tokens


@breaks("app-state-key app-state-sync-key")
def an_app_state_key_of_31_bytes(state: State) -> None:
    some(state, "app-state-sync-key")[1]["keyData"] = base64.b64encode(bytes(31)).decode()


@breaks("app-state-key app-state-sync-key", release="7.0.0-rc.4")
def an_app_state_key_without_data(state: State) -> None:
    del some(state, "app-state-sync-key")[1]["keyData"]


@breaks("my-app-state-key creds")
def no_app_state_key_of_ones_own(state: State) -> None:
    del state["keys"]["app-state-sync-key"][state["creds"]["myAppStateKeyId"]]


@breaks("app-state-version app-state-sync-version")
def a_collection_hash_of_64_bytes(state: State) -> None:
    collection(state)["hash"] = buffer(bytes(64))


@breaks("app-state-version app-state-sync-version", release="6.7.24")
def a_value_mac_of_31_bytes(state: State) -> None:
    for entry in collection(state)["indexValueMap"].values():
        entry["valueMac"] = buffer(bytes(31))


@breaks("app-state-lthash app-state-sync-version", release="7.0.0-rc.9")
def a_bit_of_a_collections_hash(state: State) -> None:
    flip(collection(state), "hash", 700)


@breaks("app-state-lthash app-state-sync-version")
def an_entry_gone_from_a_collection(state: State) -> None:
    collection(state)["indexValueMap"].popitem()


@breaks("id-grammar app-state-sync-version")
def a_collection_nobody_knows(state: State) -> None:
    state["keys"]["app-state-sync-version"]["regular_middle"] = collection(state)


@breaks("lid-mapping-unreadable lid-mapping")
def a_mapping_that_is_a_number(state: State) -> None:
    state["keys"]["lid-mapping"]["15550108888"] = 100000000008888


@breaks("lid-mapping-pair lid-mapping")
def a_mapping_without_way_back(state: State) -> None:
    del state["keys"]["lid-mapping"]["100000000000000_reverse"]


@breaks("lid-mapping-pair lid-mapping", release="7.0.0-rc.4")
def a_way_back_without_mapping(state: State) -> None:
    del state["keys"]["lid-mapping"]["15550100000"]


@breaks("lid-mapping-pair lid-mapping")
def a_way_back_to_another_number(state: State) -> None:
    state["keys"]["lid-mapping"]["100000000000000_reverse"] = "15550100001"


@breaks("device-list device-list")
def a_device_list_of_numbers(state: State) -> None:
    state["keys"]["device-list"]["15550100000"] = [0, 3]


@breaks("tctoken tctoken")
def a_token_of_text(state: State) -> None:
    state["keys"]["tctoken"][next(name for name in state["keys"]["tctoken"] if name != "__index")]["token"] = "tok!"


@breaks("tctoken tctoken", release="7.0.0-rc10")
def a_token_of_no_time(state: State) -> None:
    state["keys"]["tctoken"][next(name for name in state["keys"]["tctoken"] if name != "__index")]["timestamp"] = "now"


@breaks("tctoken-index tctoken")
def a_token_index_that_is_no_list(state: State) -> None:
    state["keys"]["tctoken"]["__index"]["token"] = buffer(b'{"a":1}')


@breaks("oversized lid-mapping", "lid-mapping-unreadable lid-mapping")
def a_mapping_of_two_megabytes(state: State) -> None:
    state["keys"]["lid-mapping"]["15550107777"] = "1" * (2 * 1024 * 1024)

"""All of a commit or nothing of it; many writers of one session, in one process and in several."""

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from api import Api, at, creds, fresh, octets, serve

# -- all or nothing ----------------------------------------------------------------------------------------------------


async def test_a_reader_never_sees_half_a_commit(api: Api):
    session = fresh()
    await api.commit(session, {"creds": creds(), "keys": {"session": {"a": 0}, "identity-key": {"a": 0}}})
    ended = False

    async def read() -> int:
        seen = 0
        while not ended:
            got = await api.get(session, {"session": ["a"], "identity-key": ["a"]})
            assert got["session"] == got["identity-key"]
            state = await api.state(session)
            assert state["keys"]["session"] == state["keys"]["identity-key"] == {"a": state["creds"]["advSecretKey"]}
            seen += 1
        return seen

    await api.commit(session, {"creds": creds(advSecretKey=0)})
    readers = [asyncio.create_task(read()) for _ in range(3)]
    for n in range(1, 301):
        body = {"creds": creds(advSecretKey=n), "keys": {"session": {"a": n}, "identity-key": {"a": n}}}
        await api.commit(session, body)
    ended = True
    assert min(await asyncio.gather(*readers)) > 5


async def test_a_commit_the_database_refuses_stores_nothing_and_fails_alone(own_api: Api):
    """A row in its middle is refused by the database itself, below everything the service checks."""
    good, bad, other = fresh(), fresh(), fresh()
    for session in (good, bad, other):
        await own_api.commit(session, {"creds": creds(), "keys": {"session": {"a": 0}}})
    await own_api.sql("ALTER TABLE session_keys ADD CHECK (ktype <> 'refused')")
    rows = {"session": {f"k{n}": n for n in range(20)} | {"a": None}, "refused": {"x": 1}, "t": {"y": 1}}
    async with own_api.unchanged():
        for method, call in (("POST", "commit"), ("PUT", "state")):
            body = {"creds": creds(nextPreKeyId=99), "keys": {**rows, "session": {"a": 5}}}
            answer = await own_api.ask(method, at(bad, call), body)
            assert (answer.status, answer.slug) == (500, "internal")
            assert set(answer.json) == {"type", "title", "status", "request_id"}
        answer = await own_api.ask("POST", at(fresh(), "commit"), {"keys": rows})
        assert answer.slug == "internal"
    asks = [
        own_api.ask("POST", at(session, "commit"), {"keys": rows if session == bad else {"session": {"a": n}}})
        for n in range(1, 11)
        for session in (good, bad, other)
    ]
    answers = await asyncio.gather(*asks)
    assert [answer.status for answer in answers] == [200, 500, 200] * 10
    for session, version in ((good, 11), (bad, 1), (other, 11)):
        assert (await own_api.state(session))["version"] == version
    await own_api.commit(bad, {"creds": creds(), "keys": {"session": {"a": 1}}})


async def test_a_client_that_goes_away_before_its_end_has_sent_nothing(api: Api):
    session = fresh()
    await api.commit(session, {"keys": {"t": {"a": 1}}})
    body = b'{"keys":{"t":{"a":2}}}'
    url = api.client.make_url(at(session, "commit"))
    async with api.unchanged():
        for length in (len(body) + 1, len(body) + 100):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            head = f"POST {url.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
            writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode() + body)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
            await reader.read()
        await asyncio.sleep(0.1)


# -- many writers ------------------------------------------------------------------------------------------------------


async def test_eight_writers_of_one_session(api: Api):
    session = fresh()

    async def write(writer: int) -> list[int]:
        return [(await api.commit(session, {"keys": {f"w{writer}": {str(n): n}}}))["version"] for n in range(20)]

    versions = await asyncio.gather(*(write(writer) for writer in range(8)))
    assert sorted(version for mine in versions for version in mine) == list(range(1, 161))
    assert all(mine == sorted(mine) for mine in versions)
    state = await api.state(session)
    assert state["version"] == 160
    assert state["keys"] == {f"w{writer}": {str(n): n for n in range(20)} for writer in range(8)}


async def test_eight_writers_who_read_before_they_write(api: Api):
    session, wins = fresh(), 0
    await api.commit(session, {"keys": {"t": {"count": 0}}})

    async def count_up() -> None:
        nonlocal wins
        while wins < 60:
            state = await api.ask("GET", at(session, "state"))
            body = {"keys": {"t": {"count": state.json["keys"]["t"]["count"] + 1}}}
            answer = await api.ask("POST", at(session, "commit"), body, headers={"If-Match": state.headers["ETag"]})
            assert answer.status in {200, 412}
            wins += answer.status == 200

    await asyncio.gather(*(count_up() for _ in range(8)))
    state = await api.state(session)
    assert (state["keys"]["t"]["count"], state["version"]) == (wins, wins + 1)


@pytest.mark.parametrize("stores", [1, 2])
async def test_batches_in_opposite_order_do_not_stand_in_each_others_way(database_url: str, stores: int):
    sessions = [fresh() for _ in range(6)]
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(serve(database_url)) for _ in range(stores)]
        await apis[0].batch(*({"session": session} for session in sessions))

        async def write(n: int) -> None:
            order = sessions if n % 2 else sessions[::-1]
            rows = [f"{i}" for i in range(4)][:: 1 if n % 2 else -1]
            results = await apis[n % stores].batch(
                *({"session": each, "keys": {"t": dict.fromkeys(rows, n)}} for each in order)
            )
            assert all("version" in result for result in results), results

        await asyncio.gather(*(write(n) for n in range(200)))
        for session in sessions:
            state = await apis[0].state(session)
            assert state["version"] == 201
            assert len(set(state["keys"]["t"].values())) == 1
        dead = await apis[0].sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert dead[0][0] == 0


async def test_two_processes_that_write_the_same_sessions_lose_nothing(database_url: str):
    sessions = [fresh() for _ in range(4)]
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(serve(database_url)) for _ in range(2)]

        async def write(process: int, writer: int) -> None:
            order = random.Random(process * 10 + writer)
            for n in range(25):
                session = order.choice(sessions)
                wrote[session] = wrote.get(session, 0) + 1
                body = {"keys": {f"p{process}-{writer}": {str(n): n, "last": n}}}
                await apis[process].commit(session, body)
                expected.setdefault(session, {}).setdefault(f"p{process}-{writer}", {}).update({str(n): n, "last": n})

        wrote: dict[str, int] = {}
        expected: dict[str, Any] = {}
        await asyncio.gather(*(write(process, writer) for process in range(2) for writer in range(4)))
        for session in sessions:
            for api in apis:
                state = await api.state(session)
                assert (state["version"], state["keys"]) == (wrote[session], expected[session])


async def test_of_two_processes_with_leases_one_wins(database_url: str):
    session, applied = fresh(), []
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(serve(database_url)) for _ in range(2)]

        async def live(process: int) -> None:
            for _ in range(15):
                epoch = await apis[process].lease(session, f"p{process}", takeover=True)
                for _ in range(3):
                    body = {"keys": {"t": {"owner": process, "epoch": epoch}}}
                    sent = {"Lease-Epoch": str(epoch)}
                    answer = await apis[process].ask("POST", at(session, "commit"), body, headers=sent)
                    if answer.status != 200:
                        assert answer.slug == "fenced"
                        break
                    applied.append((answer.json["version"], epoch, process))

        await asyncio.gather(live(0), live(1))
        state = await apis[0].state(session)
        applied.sort()
        assert [version for version, _, _ in applied] == list(range(1, len(applied) + 1))
        epochs = [epoch for _, epoch, _ in applied]
        assert epochs == sorted(epochs), "a superseded owner wrote after its successor"
        assert len({(epoch, process) for _, epoch, process in applied}) == len(set(epochs))
        assert state["keys"]["t"] == {"owner": applied[-1][2], "epoch": applied[-1][1]}


async def test_many_states_at_once_wait_for_each_other_and_all_come(database_url: str):
    """More readers of sessions not met before than there are connections."""
    async with serve(database_url) as first:
        sessions = [fresh() for _ in range(40)]
        await first.batch(*({"session": each, "creds": creds(noise=octets(1))} for each in sessions))
    async with serve(database_url, pool_max=3) as api:
        answers = await asyncio.wait_for(asyncio.gather(*(api.ask("GET", at(each, "state")) for each in sessions)), 4)
        assert {answer.status for answer in answers} == {200}

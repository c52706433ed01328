"""Both pages as a person meets them, in a real browser. Without one they are skipped: `apt install chromium`, or CHROMIUM."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from api import Api, at, creds, fresh, sid_of
from browser import CHROMIUM, Page, browse

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")
SIZES = [(360, False), (360, True), (1280, False), (1280, True)]


def noon() -> str:
    """A zone in which it is about noon: a minute before or after now is of the same day."""
    offset = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{'-' if offset >= 0 else '+'}{abs(offset)}"


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with browse(zone=noon()) as page:
        yield page


async def open_console(page: Page, api: Api, prefix: str = "", token: str | None = None) -> None:
    """The console, asked for sessions and answered."""
    await page.open(str(api.client.make_url("/")))
    await page.see(f"at('token').value = {json.dumps(token or api.token)}; at('prefix').value = {json.dumps(prefix)}")
    await press(page, "document.querySelector('#ask button')")


async def press(page: Page, button: str) -> None:
    """Presses a button, and waits for what comes of it."""
    await page.see(f"{button}.click()")
    await page.until("!at('asking').disabled")


async def row(page: Page, session: str) -> dict[str, str]:
    """What a session's row shows, by column."""
    found = f"[...document.querySelectorAll('td.name')].find((each) => each.textContent === {json.dumps(session)})"
    cells = f"[...{found}.parentElement.cells].filter((each) => each.offsetParent)"
    return dict(await page.see(f"{cells}.map((each) => [each.dataset.name, each.innerText])"))


async def counts(page: Page) -> dict[str, str]:
    pairs = "[...document.querySelectorAll('#counts > div, #types > div')].map((each) => [...each.children])"
    return dict(await page.see(f"{pairs}.map((pair) => pair.map((each) => each.innerText))"))


# -- both --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_fit_their_window_and_its_light(api: Api, page: Page, path: str):
    await api.commit(
        fresh("a-name-that-is-long-enough-not-to-fit-a-telephone.warehouse@example"), {"keys": {"t": {"a": 1}}}
    )
    colours = set()
    for width, dark in SIZES:
        await page.look(width, dark=dark)
        if path == "/":
            await open_console(page, api)
            assert await page.see("at('sessions').tBodies[0].rows.length") > 0
        else:
            await page.open(str(api.client.make_url(path)))
        assert await page.see("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width
        colours.add((dark, await page.see("getComputedStyle(document.body).backgroundColor")))
    assert len(colours) == 2
    assert page.log == []


async def test_the_reference_is_readable_without_scripts(api: Api):
    async with browse(scripts=False) as page:
        await page.open(str(api.client.make_url("/docs")))
        text = await page.see("document.body.innerText")
        assert "ttl_s number, 1 to 3,600, needed" in text
        assert await page.see("document.querySelectorAll('script, link:not([href^=\"/\"]), img').length") == 0
        await page.open(str(api.client.make_url("/")))
        assert "needs JavaScript" in await page.see("document.body.innerText")


# -- the console -------------------------------------------------------------------------------------------------------


async def test_a_lease_shows_the_day_it_ends_on_and_how_long_is_left(api: Api, page: Page):
    today, later = fresh("today"), fresh("later")
    for session in (today, later):
        await api.lease(session, "somebody", 600)
    await api.sql("UPDATE sessions SET lease_expires = '2199-11-28T12:00:00Z' WHERE sid = $1", sid_of(later))
    await open_console(page, api, "today")
    lease = (await row(page, today))["Lease"]
    assert lease.startswith("somebody, until ")
    assert lease.endswith(" minutes left")
    assert str(datetime.now(UTC).year) not in lease
    await open_console(page, api, "later")
    lease = (await row(page, later))["Lease"]
    assert "Nov 28, 2199" in lease or "Nov 29, 2199" in lease
    assert lease.endswith(" years left")
    now = "now = new Date('2026-11-30T12:00:00Z')"
    for until, left in (
        ("2026-11-30T12:00:01Z", "1 second"),
        ("2026-12-02T11:00:00Z", "1 day"),
        ("2026-11-30T11:59:00Z", "0 seconds"),
    ):
        assert await page.see(f"{now}; left(new Date('{until}'))") == left


async def test_never_checked_is_not_none(api: Api, page: Page):
    await open_console(page, api)
    for found, said in (
        (None, "never checked"),
        ({"error": 3, "warning": 0}, "3 errors"),
        ({"error": 0, "warning": 0}, "none"),
        ({"error": 1, "warning": 2}, "1 error, 2 warnings"),
        ({"error": 0, "warning": 1}, "1 warning"),
    ):
        assert await page.see(f"findings({json.dumps(found)})") == said


async def test_a_session_is_checked_and_what_is_found_is_told(own_api: Api, page: Page):
    api, damaged, whole = own_api, fresh("damaged"), fresh("whole")
    await api.commit(damaged, {"creds": creds(), "keys": {"lid-mapping": {"1": "2", "2_reverse": "1"}}})
    await api.lease(whole)
    await open_console(page, api)
    shown = await counts(page)
    assert [shown[name] for name in ("sessions", "paired", "leased", "lid-mapping")] == ["2", "1", "1", "2"]
    assert shown["findings of the last checks"] in {"never checked", "none"}
    for session in (damaged, whole):
        mine = f"[...document.querySelectorAll('tr')].find((each) => each.innerText.includes('{session}'))"
        await press(page, f"{mine}.querySelector('button')")
    assert (await row(page, whole))["Whole"] == "yes"
    report = await api.good("GET", at(damaged, "integrity"))
    assert f"{report['errors']} error" in (await row(page, damaged))["Whole"]
    text = await page.see("at('sessions').innerText")
    assert all(finding["message"] in text for finding in report["findings"])
    await open_console(page, api)
    assert f"{report['errors']} error" in (await counts(page))["findings of the last checks"]


async def test_a_row_has_a_cell_for_every_head(api: Api, page: Page):
    """On a telephone the head is not shown: each cell names itself."""
    session = fresh()
    await api.commit(session, {"keys": {"t": {"a": 1}}})
    await open_console(page, api, session)
    heads = await page.see("[...document.querySelectorAll('#sessions th')].map((each) => each.textContent)")
    cells = "[...document.querySelectorAll('#sessions tbody tr')].map((row) => [...row.cells].map((each) => each.dataset.name))"
    assert await page.see(cells) == [heads]


async def test_pages_of_sessions_follow_each_other(own_api: Api, page: Page):
    names = [f"s-{n:03}" for n in range(60)]
    await own_api.batch(*({"session": name, "keys": {"t": {"a": n}}} for n, name in enumerate(names)))
    await open_console(page, own_api)
    shown = "[...document.querySelectorAll('td.name')].map((each) => each.textContent)"
    assert len(await page.see(shown)) == 50
    await page.see("at('prefix').value = 'nothing'")  # and the next page is still of what was asked for
    await press(page, "at('more')")
    assert await page.see(shown) == names
    assert await page.see("at('more').hidden")
    await open_console(page, own_api, "nothing")
    assert await page.see("at('sessions').hidden")
    assert "no session whose name begins so" in await page.see("at('told').textContent")


async def test_what_goes_wrong_is_said(api: Api, page: Page):
    await open_console(page, api, token="wrong")
    assert await page.see("at('error').textContent") == "A valid bearer token is needed."
    assert await counts(page) == {}
    await api.client.close()
    await press(page, "document.querySelector('#ask button')")
    assert await page.see("at('error').textContent") == "The service does not answer."

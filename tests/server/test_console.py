"""The console in a real browser, on a real server: what a person sees of it and does with it."""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from events_app import outbox
from tests import conftest, databases
from tests.frames import Reader
from tests.readers import programs
from tests.server.harness_browser import Window, opened
from tests.serving import Server, eventually

AXE = Path(__file__).with_name("axe")
# Longer than a busy machine stands still: twice that of silence, and the page connects anew.
CALM = {"EVENTS_KEEP_ALIVE": "10"}
# What cannot be seen, and how it is shown.
MARKS = str.maketrans(
    {"\u202e": "U+202E", "\u2066": "U+2066", "\t": "U+0009", "\n": "U+000A", "\x1b": "U+001B"}
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server for all tests that only look."""
    folder = tmp_path_factory.mktemp("shared")
    with (
        databases.migrated("sqlite", folder) as url,
        Server(url, folder / "gunicorn.log", CALM).running() as server,
    ):
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    with opened(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture
def window(browser: Window, shared: Server) -> Iterator[Window]:
    """Give the console, freshly loaded; nothing that a test does may make the browser complain."""
    browser.show(1280)
    browser.open(shared)
    yield browser
    assert refused(browser.complaints()) == []


def refused(complaints: list[str]) -> list[str]:
    """Leave out what the browser says of every answer that is an error."""
    return [each for each in complaints if "the server responded with a status of 4" not in each]


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    """Name a user who has nothing yet."""
    return f"{request.node.name[:40]}-{uuid.uuid4().hex[:8]}"


def commit(server: Server, user: str, *changes: tuple[str, str, str | None]) -> None:
    """Commit changes in one transaction, as an app does."""
    engine = sqlalchemy.create_engine(server.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for number, (kind, path, to_path) in enumerate(changes):
            outbox.append(connection, user, kind, f"f{number}", path, to_path)


def creates(*paths: str) -> list[tuple[str, str, str | None]]:
    return [("create", path, None) for path in paths]


# -- the stream ------------------------------------------------------------------------------------


def test_a_change_that_is_committed_is_seen(window: Window, shared: Server, user: str) -> None:
    window.follow(shared.token(user))
    window.until_state("Subscribed")
    commit(shared, user, ("rename", "/docs/a.md", "/docs/b.md"))
    window.until_rows(1)
    ((_, *cells),) = window.rows()
    assert cells == ["rename", "/docs/a.md", "/docs/b.md", "f0"]
    assert (window.text("frames"), window.text("changes")) == ("2", "1")
    assert window.text("last-frame").startswith("event, ")
    assert window.text("sent-client-id") == "none"


def test_the_folder_and_the_object_form_are_asked_for(
    window: Window, shared: Server, user: str
) -> None:
    window.run("document.getElementById('as-client').open = true")
    window.choose("payload", "object")
    window.follow(shared.token(user), uri="cloudreve://my/docs")
    window.until_state("Subscribed")
    commit(shared, user, *creates("/docs/a", "/elsewhere/b", "/docs/c"))
    window.until(lambda: window.paths() == ["/c", "/a"], "both changes")
    assert window.text("frames") == "3"  # an array would have come in one
    assert window.text("changes") == "2"


def test_what_a_client_did_itself_is_not_told_to_it(
    window: Window, shared: Server, user: str
) -> None:
    window.run("document.getElementById('as-client').open = true")
    window.click("#new-id")
    client = uuid.UUID(str(window.find("client-id").get_property("value")))
    assert client.version == 4
    window.follow(shared.token(user))
    window.until_state("Subscribed")
    shared.append("create", "/own", user_id=user, client_id=str(client))
    shared.append("create", "/another", user_id=user)
    window.until(lambda: window.paths() == ["/another"], "the other's alone")
    assert window.text("sent-client-id") == str(client)


def test_it_goes_on_behind_a_given_frame(window: Window, shared: Server, user: str) -> None:
    with Reader(shared, user) as reader:
        position = reader.expect("subscribed").id
    assert position is not None
    commit(shared, user, *creates("/missed"))
    window.follow(shared.token(user), last_event_id=position)
    window.until(lambda: window.paths() == ["/missed"], "what was missed")
    assert window.states() == ["Connecting", "Resumed"]


def test_the_newest_thousand_are_kept_and_can_be_held_back_and_cleared(
    window: Window, shared: Server, user: str
) -> None:
    window.follow(shared.token(user))
    window.until_state("Subscribed")
    window.click("#hold")
    commit(shared, user, *creates(*(f"/{number}" for number in range(1100))))
    window.until_text("changes", "1100")
    assert window.rows() == []
    assert "Paused: 1,000 or more wait." in window.text("shown")
    window.click("#hold")
    assert window.paths() == [f"/{number}" for number in range(1099, 99, -1)]
    window.click("#clear")
    assert window.rows() == []
    commit(shared, user, *creates("/later"))
    window.until(lambda: window.paths() == ["/later"], "what came later")


def test_stop_ends_it_and_follow_begins_anew(window: Window, shared: Server, user: str) -> None:
    window.follow(shared.token(user))
    window.until_state("Subscribed")
    window.click("#stop")
    assert window.text("state") == "Not following."
    eventually(lambda: f"user_id={user}" in ended(shared), what="the server's end of it")
    window.click("#follow .first")
    window.until_state("Subscribed")


def ended(server: Server) -> str:
    """Return what the log says of the ends of streams."""
    lines = server.log.read_text().splitlines()
    return "\n".join(line for line in lines if "a stream ends" in line)


# -- names -----------------------------------------------------------------------------------------


def test_whatever_is_in_a_name_is_text(window: Window, shared: Server, user: str) -> None:
    names = [
        "/<img src=x onerror=\"document.title='run'\">",
        "/<script>document.title='run'</script>&amp;",
        "/safe\u202egpj.exe",
        "/\u2066a\t\n\x1bb",
        "/名前 🗂️ é",
        "/" + "/".join(["long" * 60] * 16),
    ]
    window.follow(shared.token(user))
    window.until_state("Subscribed")
    commit(shared, user, *creates(*names))
    window.until_rows(len(names))
    window.click("#history button")
    window.until_rows(len(names), "past")
    expected = [name.translate(MARKS) for name in names][::-1]
    assert window.paths() == window.paths("past") == expected
    assert window.run("return document.querySelectorAll('td img, td script').length") == 0
    assert window.driver.title == "events-app console"
    for width in (320, 1280, 3840):
        window.show(width)
        assert window.run("return document.documentElement.scrollWidth <= innerWidth"), width


def test_what_would_run_is_refused(window: Window) -> None:
    """So that a fault of the page would be an error, and nothing more."""
    refusal = """
    try { document.body.insertAdjacentHTML('beforeend', '<img src=x>'); return 'taken' }
    catch (error) { return error.name }
    """
    assert window.run(refusal) == "TypeError"
    reached = """
    const done = arguments[0];
    fetch('http://127.0.0.2:1/').then(() => done('sent'), () => done('refused'));
    """
    assert window.driver.execute_async_script(reached) == "refused"
    complaints = window.complaints()
    assert any("'TrustedHTML'" in each for each in complaints), complaints
    assert any(
        "'connect-src 'self''" in each or "\"connect-src 'self'\"" in each for each in complaints
    ), complaints


# -- the token -------------------------------------------------------------------------------------

EVERYWHERE = """
return [location.href, document.cookie, JSON.stringify(localStorage),
  JSON.stringify(sessionStorage), JSON.stringify(history.state), document.documentElement.outerHTML,
  ...performance.getEntries().map((each) => each.name)].join('\\n');
"""


def test_the_token_is_nowhere_but_in_memory(window: Window, shared: Server, user: str) -> None:
    token = shared.token(user)
    window.follow(f"Bearer {token}")
    window.until_state("Subscribed")
    window.click("#history button")
    window.until_text("past-state", "0 changes. That is all.")
    assert token not in window.run(EVERYWHERE)
    assert user in shared.log.read_text()
    assert token not in shared.log.read_text()


def test_a_token_that_could_not_be_sent_is_not(window: Window) -> None:
    window.follow("a tökèn")
    assert window.text("state") == "Not following."
    assert window.run("return document.activeElement.id") == "token"


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "status", "code", "sentence"),
    [
        ("cloudreve://my", 401, 401, "a valid access token is required"),
        ("cloudreve://trash", 400, 40001, "uri: "),
        ("cloudreve://somebody@my", 403, 403, "This folder belongs to somebody else."),
    ],
)
def test_a_refusal_ends_it_with_the_servers_words(
    window: Window, shared: Server, uri: str, status: int, code: int, sentence: str
) -> None:
    window.follow("no.good.token" if status == 401 else shared.token("42"), uri=uri)
    window.until_state("Ended")
    said = window.text("problem")
    assert said.startswith(sentence)
    assert f"status {status}, code {code}" in said
    assert correlation_id(said) in shared.log.read_text()
    assert not window.find("stop").is_enabled()
    window.click("#history button")
    window.until_text("past-state", "The server refuses.")
    assert window.text("past-problem").startswith(sentence)


def correlation_id(text: str) -> str:
    found = re.search(r"details under (\S+)$", text)
    assert found, text
    return str(uuid.UUID(found[1]))


# -- the connection --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server that may be stopped and held up, with one stream for each user."""
    folder = tmp_path_factory.mktemp("own")
    with databases.migrated("sqlite", folder) as url:
        settings = CALM | {"EVENTS_MAX_STREAMS_PER_USER": "1"}
        with Server(url, folder / "gunicorn.log", settings, workers=1).running() as server:
            yield server


def test_nothing_is_missing_after_a_restart(browser: Window, own: Server, user: str) -> None:
    browser.open(own)
    browser.follow(own.token(user))
    browser.until_state("Subscribed")
    commit(own, user, *creates("/before"))
    browser.until(lambda: browser.paths() == ["/before"], "a change")
    own.stop()
    browser.until_state("Coming", "Connecting")
    commit(own, user, *creates("/missed"))
    own.start()
    browser.until_state("Resumed")
    commit(own, user, *creates("/after"))
    browser.until(lambda: len(browser.rows()) >= 3, "what was missed and what came after")
    assert browser.paths() == ["/after", "/missed", "/before"]
    said = browser.run("return window.states")
    asked_back = re.compile(r"Coming back in \d+ s: the server asked to come back\.")
    assert any(map(asked_back.fullmatch, said)), said
    assert browser.states().count("Subscribed") == 1
    browser.click("#stop")


def test_a_connection_on_which_nothing_comes_is_given_up(
    browser: Window, sqlite_url: str, tmp_path: Path
) -> None:
    """As behind a firewall that forgot it: no byte, and no end either."""
    with Server(sqlite_url, tmp_path / "gunicorn.log", workers=1).running() as server:
        is_given_up(browser, server)


def is_given_up(browser: Window, server: Server) -> None:
    browser.open(server)
    browser.follow(server.token())
    browser.until_state("Subscribed")
    browser.until(lambda: browser.text("last-keep-alive") != "none yet", "a keep-alive")
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    try:
        given_up = re.compile(r"Coming back in \d+ s: nothing came for 2 s\.")
        browser.until(
            lambda: any(map(given_up.fullmatch, browser.run("return window.states"))), "given up"
        )
    finally:
        os.kill(worker, signal.SIGCONT)
    browser.until_state("Resumed")
    browser.click("#stop")


def test_a_user_with_too_many_streams_is_waited_for(
    browser: Window, own: Server, user: str
) -> None:
    with Reader(own, user) as reader:
        reader.expect("subscribed")
        browser.open(own)
        browser.follow(own.token(user))
        browser.until_state("Coming")
        assert re.match(r"Coming back in 3[01] s: the server refuses\.", browser.text("state"))
        assert "status 429, code 429" in browser.text("problem")
        browser.click("#stop")


def test_a_stream_that_is_held_is_said_to_be(browser: Window, own: Server, user: str) -> None:
    engine = sqlalchemy.create_engine(own.database_url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # as a writer that takes its time
        browser.open(own)
        browser.follow(own.token(user), client_id=str(uuid.uuid4()))
        browser.until_state("Held")
    browser.until_state("Subscribed")
    browser.click("#stop")


# -- the history -----------------------------------------------------------------------------------


def test_the_history_goes_back_page_by_page(window: Window, shared: Server, user: str) -> None:
    commit(shared, user, *creates(*(f"/{number}" for number in range(230))))
    shared.append("delete", "/0", user_id=user, actor_id="ann", client_id=str(uuid.UUID(int=7)))
    window.fill("token", shared.token(user))
    everything = 231
    eventually(lambda: in_journal(shared, user) == everything, what="all of it in the journal")
    window.click("#history button")
    for shown in (100, 200, everything):
        window.until_rows(shown, "past")
        assert window.find("older").is_displayed() == (shown < everything)
        if shown < everything:
            window.click("#older")
    assert window.paths("past") == ["/0", *(f"/{number}" for number in range(229, -1, -1))]
    assert window.rows("past")[0][5] == f"ann, {uuid.UUID(int=7)}"
    assert window.text("past-state") == "231 changes. That is all."
    (title, shown_as) = window.run(
        "const time = document.querySelector('#past time'); return [time.title, time.textContent]"
    )
    assert title.endswith("Z")
    assert datetime.fromisoformat(title).tzname() == "UTC"
    assert shown_as != title
    window.choose("type", "delete")
    window.click("#history button")
    window.until_text("past-state", "1 change. That is all.")


def in_journal(server: Server, user: str) -> int:
    engine = sqlalchemy.create_engine(server.database_url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        count = sqlalchemy.text("SELECT COUNT(*) FROM file_event_journal WHERE user_id = :user")
        return int(connection.scalar(count, {"user": user}) or 0)


def test_the_history_is_asked_for_by_time(window: Window, shared: Server, user: str) -> None:
    commit(shared, user, *creates("/a"))
    window.fill("token", shared.token(user))
    eventually(lambda: in_journal(shared, user) == 1, what="it in the journal")
    # Whole seconds of the browser's own time, as its picker would write them.
    picked = """
    const field = document.getElementById(arguments[0]);
    const then = new Date(Date.now() + 1000 * arguments[1]);
    field.value = new Date(then - 60000 * then.getTimezoneOffset()).toISOString().slice(0, 19);
    """
    for since, count in ((-3600, "1 change"), (3600, "0 changes")):
        window.run(picked, "from-time", since)
        window.click("#history button")
        window.until_text("past-state", f"{count}. That is all.")


# -- who uses it -----------------------------------------------------------------------------------


def focused(window: Window) -> WebElement:
    return window.driver.switch_to.active_element


def test_a_keyboard_is_enough(window: Window, shared: Server, user: str) -> None:
    commit(shared, user, *creates("/a"))
    unseen = set()

    def tab_to(name: str) -> None:
        for _ in range(30):
            focused(window).send_keys(Keys.TAB)
            element = focused(window)
            if element.value_of_css_property("outline-style") == "none":
                unseen.add(element.get_attribute("outerHTML"))
            if element.get_attribute("id") == name:
                return
        raise AssertionError(f"{name} cannot be reached")

    tab_to("token")
    focused(window).send_keys(shared.token(user), Keys.ENTER)
    window.until_state("Subscribed")
    tab_to("stop")
    focused(window).send_keys(Keys.SPACE)
    window.until_state("Not")
    assert "first" in str(focused(window).get_attribute("class")), "the focus is lost"
    tab_to("hold")
    focused(window).send_keys(Keys.ENTER)
    assert window.find("hold").get_attribute("aria-pressed") == "true"
    tab_to("type")
    focused(window).send_keys(Keys.TAB, Keys.NULL)
    focused(window).send_keys(Keys.ENTER)
    window.until(lambda: window.paths("past") == ["/a"], "the history")
    assert unseen == set(), "a focus that nobody sees"


@pytest.fixture(scope="module")
def axe() -> str:
    try:
        folder = programs.packages(AXE)
    except programs.MissingError as reason:
        conftest.missing(str(reason))
    return (folder / "axe-core/axe.min.js").read_text()


def faults(window: Window, axe: str) -> list[str]:
    """Let axe-core look at the page as it stands."""
    window.run(axe + "; window.axe = axe")
    look = """
    const done = arguments[0];
    axe.run().then(({violations}) => done(violations.flatMap((rule) =>
      rule.nodes.map((node) => `${rule.impact} ${rule.id}: ${node.html.slice(0, 200)}`))));
    """
    found: list[str] = window.driver.execute_async_script(look)
    return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (320, "light")])
def test_nothing_is_in_the_way_of_who_cannot_see_well(
    window: Window, shared: Server, user: str, axe: str, width: int, scheme: str
) -> None:
    window.show(width, scheme=scheme)
    kinds = [("create", "/a", None), ("modify", "/b", None), ("delete", "/c\u202e", None)]
    window.follow(shared.token(user))
    window.until_state("Subscribed")
    commit(shared, user, *kinds, ("rename", "/d", "/e"))
    window.until_rows(4)
    window.click("#history button")
    window.until_rows(4, "past")
    assert faults(window, axe) == []
    window.follow("no.good.token")
    window.until_state("Ended")
    assert faults(window, axe) == []


def test_what_is_in_the_way_would_be_noticed(window: Window, axe: str) -> None:
    window.run("document.querySelector('label[for=uri]').remove()")
    assert any("critical label" in each for each in faults(window, axe))

"""Every asker at every door with every token: one exact answer each, and nobody else's rows.

The tables are in `authorization`. What a permission ends that somebody is waiting with is here too.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from sqlalchemy import delete, insert, select, union_all, update

from events_app.columns import utc_now
from events_app.schema import grant, journal, outbox
from tests import databases
from tests.conftest import need
from tests.frames import FRAME
from tests.server import authorization, harness
from tests.server.authorization import (
    ASKERS,
    DOORS,
    GUEST,
    MADE,
    OWNER,
    PLACES,
    REVOKED,
    STRANGER,
    TOKENS,
    WRITTEN,
    Answer,
    Asker,
    Sent,
)
from tests.serving import Server, eventually

# Rows that are appended by the way are where nobody looks.
ELSEWHERE = "elsewhere"
HELD = 16
WAIT_SECONDS = 40
# How long a hook's round would take, so that nobody waits for one here.
RECHECK_SECONDS = 600

HOOK = """
import os

def refusal(claims):
    there = os.path.exists(os.path.join(os.environ["REVOKED_TOKENS"], str(claims.get("jti"))))
    return "its user signed out" if there else None
"""
GUARDED = {
    "EVENTS_JWT_ISSUER": authorization.ISSUER,
    "EVENTS_JWT_AUDIENCE": authorization.AUDIENCE,
    "EVENTS_JWT_LEEWAY": "0",
    "EVENTS_TOKEN_RECHECK": str(RECHECK_SECONDS),
    "EVENTS_MAX_STREAMS_PER_USER": str(HELD),
}
OPEN = {"EVENTS_TOKEN_IN_QUERY": "true", "EVENTS_TOKEN_IN_COOKIE": "true"}
OFF = {"EVENTS_ENABLED": "false"}


class Site:
    """One database with the rows and grants of the tables, and the servers on it."""

    def __init__(self, url: str, folder: Path, more: Mapping[str, Mapping[str, str]]) -> None:
        self.secret = secrets.token_urlsafe(48)
        self.client = httpx.Client(timeout=WAIT_SECONDS + 20)
        self.revoked = folder / "revoked"
        self.revoked.mkdir()
        (self.revoked / REVOKED).touch()
        _install(folder)
        self.servers = {
            name: self._server(url, folder, name, settings)
            for name, settings in {"guarded": {}, **more}.items()
        }
        self.guarded = self.servers["guarded"]
        self.cursors: dict[str, str] = {}
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def _server(self, url: str, folder: Path, name: str, settings: Mapping[str, str]) -> Server:
        made = Server(
            url, folder / f"{name}.log", {**GUARDED, **settings}, workers=1, secret=self.secret
        )
        made.environment |= {"PYTHONPATH": str(folder), "REVOKED_TOKENS": str(self.revoked)}
        return made

    def run(self, *statements: sqlalchemy.Executable) -> None:
        """Commit statements in one transaction."""
        with self._engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    def prepare(self) -> None:
        """Take the cursors while all that was ever granted is; then write the rows."""
        shares = {"open": 1, "file": 0, "revoked": 1, "expired": 1}
        self.run(*(insert(grant).values(_granted(share, shares[share])) for share in shares))
        for name, (user, uri) in authorization.CURSORS.items():
            self.cursors[name] = self.page(Asker(user, uri, None, ""))["cursor"]
        with self._engine.connect() as connection:
            past = connection.scalar(select(utc_now()))
        assert past is not None
        expired = update(grant).where(grant.c.share_id == "expired")
        self.run(
            delete(grant).where(grant.c.share_id == "revoked"),
            expired.values(expires_at=past - timedelta(seconds=1)),
            *(insert(outbox).values(_row(*row)) for row in WRITTEN),
        )
        eventually(self._is_read, what="every server has read the rows")

    def _is_read(self) -> bool:
        own = ASKERS["own"]
        return all(
            len(self.page(own, server=server, cursor=self.cursors["own"])["events"]) == 3
            for name, server in self.servers.items()
            if name != "off"
        )

    def page(self, asker: Asker, server: Server | None = None, **query: str) -> dict[str, Any]:
        """Ask for changes with a good token."""
        answer = self.get(asker, "changes", MADE["good"](asker, self.secret), server, **query)
        assert answer.status_code == httpx.codes.OK, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    def get(
        self, asker: Asker, door: str, sent: Sent, server: Server | None = None, **query: str
    ) -> httpx.Response:
        """Ask a door that answers at once."""
        address = f"{(server or self.guarded).events_url}/{door}".removesuffix("/stream")
        asked = (("uri", asker.uri), *query.items(), *sent.query)
        return self.client.get(address, params=asked, headers=sent.headers)

    def written(self) -> collections.Counter[str]:
        """Count by user what was appended, moved or not: in one statement, for it moves."""
        queries = [
            select(each.c.user_id).where(each.c.fs == ELSEWHERE) for each in (outbox, journal)
        ]
        with self._engine.connect() as connection:
            return collections.Counter(connection.scalars(union_all(*queries)))

    # -- a cell --------------------------------------------------------------------------------

    def answer(self, name: str, who: str, door: str, token: str) -> Answer:
        """Ask as a cell says."""
        asker, server = ASKERS[who], self.servers[name]
        sent = MADE[token](asker, self.secret)
        if door == "append":
            return self._appended(asker, sent, server)
        cursor = self.cursors[asker.cursor_of]
        if door == "stream":
            return self._streamed(asker, sent, server, cursor)
        query = {"cursor": cursor} if door == "changes" else {}
        return _read(self.get(asker, door, sent, server, **query))

    def _appended(self, asker: Asker, sent: Sent, server: Server) -> Answer:
        item = {"type": "create", "file_id": "f", "from": "/docs/new", "fs": ELSEWHERE}
        named = {} if asker.appends_for is None else {"user_id": asker.appends_for}
        return _read(
            self.client.post(
                server.events_url, json=[item | named], headers=sent.headers, params=sent.query
            )
        )

    def _streamed(self, asker: Asker, sent: Sent, server: Server, cursor: str) -> Answer:
        headers = [*sent.headers, ("Last-Event-ID", cursor)]
        asked = (("uri", asker.uri), *sent.query)
        with self.client.stream("GET", server.events_url, params=asked, headers=headers) as answer:
            if answer.status_code != httpx.codes.OK:
                answer.read()
                return _read(answer)
            return 200, 0, _pairs(_first_event(answer))


def _first_event(answer: httpx.Response) -> list[dict[str, str]]:
    """Read what a resumed stream tells first; nothing where it only keeps alive."""
    body, names = b"", []
    for chunk in answer.iter_raw():
        body += chunk
        while found := FRAME.match(body):
            body = body[found.end() :]
            names.append(found[1].decode())
            if names[-1] == "event":
                changes: list[dict[str, str]] = json.loads(found[3])
                assert names[0] == "resumed"
                return changes
            if len(names) == 3:
                return []
    raise AssertionError(f"the stream ended after {names}")


def _read(answer: httpx.Response) -> Answer:
    document = answer.json()
    events = (document.get("data") or {}).get("events", [])
    return answer.status_code, document["code"], _pairs(events)


def _pairs(events: list[dict[str, str]]) -> list[tuple[str, str]]:
    return sorted((event["file_id"], event["from"]) for event in events)


def _granted(share: str, is_folder: int) -> dict[str, object]:
    values = {"share_id": share, "user_id": GUEST, "owner_id": OWNER, "path": "/docs"}
    return {**values, "is_folder": is_folder}


def _row(user: str, path: str, file_id: str) -> dict[str, str]:
    return {"user_id": user, "type": "create", "file_id": file_id, "from_path": path}


def _install(folder: Path) -> None:
    """Install a package that says which tokens are revoked: a module and its entry point."""
    (folder / "signed_out.py").write_text(HOOK)
    about = folder / "signed_out-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: signed-out\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[events_app.tokens]\nit = signed_out:refusal\n")


@contextlib.contextmanager
def _site(engine: str, folder: Path, **more: Mapping[str, str]) -> Iterator[Site]:
    need(engine)
    with databases.migrated(engine, folder) as url:
        site = Site(url, folder, more)
        with harness.running(*site.servers.values()), site.client:
            site.prepare()
            yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with _site("sqlite", tmp_path_factory.mktemp("sqlite"), open=OPEN, off=OFF) as made:
        yield made


# -- the tables ----------------------------------------------------------------------------------


def test_the_tables_have_every_cell_and_no_other() -> None:
    for tokens in (TOKENS, PLACES):
        named = authorization.rows_of(tokens)
        assert len(set(named)) == len(named)
        assert set(named) <= set(MADE)
        assert set(authorization.answers_to(tokens)) == authorization.cells(named)
    assert set(MADE) == {*authorization.rows_of(TOKENS), *authorization.rows_of(PLACES)}
    assert authorization.rows_of(authorization.GOOD) == list(ASKERS)


def assert_all(site: Site, name: str, tokens: str, token: str) -> None:
    """Hold each asker at each door with one token to the tables, and what was written too."""
    expected = {
        cell: it for cell, it in authorization.answers_to(tokens).items() if cell[2] == token
    }
    assert len(expected) == len(ASKERS) * len(DOORS)
    before = site.written()
    found = {cell: site.answer(name, *cell) for cell in expected}
    assert found == expected
    appended = collections.Counter(
        ASKERS[who].appends_for or ASKERS[who].user
        for (who, _, _), (status, _, _) in expected.items()
        if status == httpx.codes.CREATED
    )
    assert site.written() - before == appended


@pytest.mark.parametrize("token", authorization.rows_of(TOKENS))
def test_every_cell(site: Site, token: str) -> None:
    assert_all(site, "guarded", TOKENS, token)


@pytest.mark.parametrize("token", authorization.rows_of(PLACES))
def test_every_cell_where_cookies_and_queries_are_taken(site: Site, token: str) -> None:
    assert_all(site, "open", PLACES, token)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_every_cell_of_a_good_token_on_the_other_databases(engine: str, tmp_path: Path) -> None:
    """And what is waited for through a grant that goes."""
    with _site(engine, tmp_path) as made:
        assert_all(made, "guarded", TOKENS, "good")
        assert_a_guest_who_waits_is_told_nothing(made, _withdraw)


# -- of two faults -------------------------------------------------------------------------------

# In the order in which they are looked at, with what each is answered.
FAULTS: dict[str, tuple[int, int]] = {
    "not verified": (401, 401),
    "names nobody": (401, 401),
    "wrong type": (401, 40020),
    "no scope": (403, 40089),
    "revoked": (401, 401),
    "switched off": (403, 40019),
    "bad parameter": (400, 40001),
    "somebody else's": (403, 403),
    "too many": (429, 429),
}
IN_CLAIMS: dict[str, dict[str, Any]] = {
    "names nobody": {"sub": ""},
    "wrong type": {"token_type": "refresh"},
    "no scope": {"client_id": "app"},
    "revoked": {"jti": REVOKED},
}
# A server that is switched off has no streams that could be too many.
CASES = [
    case
    for case in [*itertools.combinations(FAULTS, 1), *itertools.combinations(FAULTS, 2)]
    if case != ("switched off", "too many")
]


def ask_with(site: Site, door: str, *faults: str) -> tuple[int, int]:
    """Ask a door, with several faults at once."""
    server = site.servers["off" if "switched off" in faults else "guarded"]
    asker = ASKERS["own"]
    changed: dict[str, Any] = {}
    for fault in faults:
        changed |= IN_CLAIMS.get(fault, {})
    secret = site.secret[::-1] if "not verified" in faults else site.secret
    sent = authorization.bearer(
        authorization.signed(authorization.claims_of(asker, **changed), secret)
    )
    if door == "append":
        return _append_with(site, server, sent, *faults)
    if "somebody else's" in faults:
        asker = asker._replace(uri=f"cloudreve://{STRANGER}@my")
    query = {"client_id": "no UUID"} if "bad parameter" in faults else {}
    if door == "changes":
        query |= {"cursor": site.cursors["own"], "wait": "1"}
    with site.client.stream(
        "GET",
        f"{server.events_url}/{door}".removesuffix("/stream"),
        params=(("uri", asker.uri), *query.items()),
        headers=sent.headers,
    ) as answer:
        assert answer.status_code != httpx.codes.OK
        answer.read()
    return _read(answer)[:2]


def _append_with(site: Site, server: Server, sent: Sent, *faults: str) -> tuple[int, int]:
    item = {"type": "create", "file_id": "f", "from": "/docs/new", "fs": ELSEWHERE}
    item |= {"user_id": STRANGER} if "somebody else's" in faults else {}
    query = {"wait": "soon"} if "bad parameter" in faults else {}
    return _read(
        site.client.post(server.events_url, json=[item], headers=sent.headers, params=query)
    )[:2]


@pytest.fixture
def crowded(site: Site) -> Iterator[Site]:
    """Give the site while its owner has as many streams open as may be."""
    sent = MADE["good"](ASKERS["own"], site.secret)
    with contextlib.ExitStack() as stack:

        def begins() -> bool:
            """Those of other tests may not have been counted out yet."""
            stream = site.client.stream("GET", site.guarded.events_url, headers=sent.headers)
            return stack.enter_context(stream).status_code == httpx.codes.OK

        for _ in range(HELD):
            eventually(begins)
        yield site


@pytest.mark.parametrize("door", ["stream", "changes", "history"])
def test_of_two_faults_the_first_one_is_answered(crowded: Site, door: str) -> None:
    cases = [case for case in CASES if door != "history" or "too many" not in case]
    found = {case: ask_with(crowded, door, *case) for case in cases}
    assert found == {case: FAULTS[case[0]] for case in cases}


def test_an_append_looks_at_the_token_before_the_body(crowded: Site) -> None:
    """It is served while streams are switched off, and takes no stream's place."""
    cases = [case for case in CASES if not {"switched off", "too many"} & set(case)]
    before = crowded.written()
    found = {case: ask_with(crowded, "append", *case) for case in cases}
    assert found == {case: FAULTS[case[0]] for case in cases}
    assert crowded.written() == before
    assert ask_with(crowded, "append", "switched off") == (201, 0)


# -- what goes while somebody waits --------------------------------------------------------------


@contextlib.contextmanager
def waiting(site: Site, asker: Asker, sent: Sent) -> Iterator[Future[httpx.Response]]:
    """Wait for a page; the wait has begun."""
    cursor = site.page(asker)["cursor"]
    eventually(lambda: _places(site) == 0)
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(
            lambda: site.get(asker, "changes", sent, cursor=cursor, wait=str(WAIT_SECONDS))
        )
        eventually(lambda: poll.done() or _places(site))
        assert not poll.done(), poll.result().text
        yield poll


def _places(site: Site) -> int:
    text = httpx.get(f"{site.guarded.url}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("events_streams{")]
    return int(float(line.split()[-1]))


# What ends a grant, in the transaction in which something secret comes.
Ending = Callable[[Site], sqlalchemy.Executable]


def _withdraw(site: Site) -> sqlalchemy.Executable:
    del site
    return delete(grant).where(grant.c.share_id == "waited")


def _move(site: Site) -> sqlalchemy.Executable:
    del site
    return update(grant).where(grant.c.share_id == "waited").values(path="/private")


def _end_now(site: Site) -> sqlalchemy.Executable:
    del site
    return update(grant).where(grant.c.share_id == "waited").values(expires_at=utc_now())


def assert_a_guest_who_waits_is_told_nothing(site: Site, ending: Ending) -> None:
    asker = Asker(GUEST, "cloudreve://waited@share", None, "")
    site.run(insert(grant).values(_granted("waited", 1)))
    with waiting(site, asker, MADE["good"](asker, site.secret)) as poll:
        site.run(ending(site), insert(outbox).values(_row(OWNER, "/docs/secret", "secret")))
        answer = poll.result(WAIT_SECONDS / 2)
    assert _read(answer) == (403, 403, [])
    assert "secret" not in answer.text
    site.run(delete(grant).where(grant.c.share_id == "waited"))


@pytest.mark.parametrize("ending", [_withdraw, _move, _end_now])
def test_a_guest_who_waits_is_told_nothing_after_its_grant(site: Site, ending: Ending) -> None:
    """A look at the grants is seconds away, and what comes before it must not be told either."""
    assert_a_guest_who_waits_is_told_nothing(site, ending)


def test_who_waits_is_told_nothing_after_its_token_was_revoked(site: Site) -> None:
    asker = Asker("45", "cloudreve://my", None, "")
    sent = authorization.made(jti="soon")(asker, site.secret)
    with waiting(site, asker, sent) as poll:
        (site.revoked / "soon").touch()
        site.run(insert(outbox).values(_row("45", "/secret", "secret")))
        answer = poll.result(WAIT_SECONDS / 2)
    assert _read(answer) == (401, 401, [])
    assert "secret" not in answer.text


def test_who_waits_is_answered_when_its_token_expires(site: Site) -> None:
    asker = Asker("46", "cloudreve://my", None, "")
    cursor = site.page(asker)["cursor"]
    for seconds in (2, 5, 15):  # one that is not asked about in time is bad from the start
        sent = authorization.made(exp=int(time.time()) + seconds)(asker, site.secret)
        answer = site.get(asker, "changes", sent, cursor=cursor, wait=str(WAIT_SECONDS))
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            break
    assert _read(answer) == (200, 0, [])
    assert _read(site.get(asker, "changes", sent)) == (401, 401, [])

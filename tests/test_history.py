"""What happened, as auditors and users ask: complete, in order, bounded; on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from sqlalchemy import Connection

from events_app import history, uri
from events_app.database import Database
from events_app.history import Entry, Question
from tests import kept, plans, reused, statements

START = datetime(2026, 11, 20, tzinfo=UTC)

url = reused.on_each_engine


def read(database: Database, question: Question, rows: int = 100) -> list[Entry]:
    """Read page after page to the end; no page holds more than it may."""
    found: list[Entry] = []
    before: int | None = history.END
    while before is not None:
        page = _page(database, question, before, rows)
        assert len(page.entries) <= rows
        assert page.next is None or page.next < before
        found += page.entries
        before = page.next
    return found


def _page(database: Database, question: Question, before: int, rows: int) -> history.Page:
    return database.read(lambda db: history.page(db, question, before, rows))


def positions(entries: Sequence[Entry]) -> list[int]:
    return [entry.position for entry in entries]


def test_an_entry_holds_everything_an_auditor_may_want(database: Database) -> None:
    values = kept.row(
        1,
        type="rename",
        from_path="/ä",
        to_path="/ö\u2028😀",
        client_id="c",
        actor_id="7",
        event_key="k",
        meta='{"ip": "192.0.2.7"}',
        recorded_at=START,
        created_at=START - timedelta(hours=1),
    )
    kept.keep(database, [values, kept.row(2, rejected="why")])
    rejected, entry = read(database, Question())
    expected = {name: values[name] for name in Entry._fields}
    assert entry._asdict() == expected
    assert (entry.actor, rejected.actor, rejected.rejected) == ("7", "42", "why")


def test_an_empty_journal_has_no_history(database: Database) -> None:
    for question in (Question(), Question("42"), Question("42", path="/a"), Question(actor="42")):
        assert read(database, question) == []


def test_pages_are_the_newest_first_and_nothing_is_between_them(database: Database) -> None:
    kept.keep_run(database, 1, 7)
    first = _page(database, Question(), history.END, 3)
    assert (positions(first.entries), first.next) == ([7, 6, 5], 5)
    assert positions(read(database, Question(), rows=3)) == [7, 6, 5, 4, 3, 2, 1]
    assert positions(read(database, Question(user_id="42"), rows=3)) == [7, 6, 5, 4, 3, 2, 1]


def test_what_comes_meanwhile_moves_no_page(database: Database) -> None:
    kept.keep_run(database, 1, 4)
    first = _page(database, Question("42"), history.END, 2)
    kept.keep_run(database, 5, 6)
    assert first.next is not None
    assert positions(_page(database, Question("42"), first.next, 9).entries) == [2, 1]


def test_a_page_looks_at_no_more_rows_than_it_may(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for what hardly ever happened gets empty pages that say how far they looked."""
    monkeypatch.setattr(history, "LOOK_ROWS", 4)
    kept.keep(database, [kept.row(n, type="delete" if n == 1 else "create") for n in range(1, 11)])
    for question in (Question("42", types=("delete",)), Question(types=("delete",))):
        first = _page(database, question, history.END, 5)
        assert (first.entries, first.next) == ([], 7)
        assert positions(read(database, question)) == [1]


def test_a_pruned_journal_ends_where_it_begins(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LOOK_ROWS", 2)
    kept.keep_run(database, 6, 9)
    assert positions(read(database, Question())) == [9, 8, 7, 6]
    assert positions(read(database, Question(user_id="42"))) == [9, 8, 7, 6]


def test_a_path_is_itself_what_is_below_and_what_takes_a_folder_above_away(
    database: Database,
) -> None:
    rows = [
        {"from_path": "/a/b"},
        {"from_path": "/a/b/c"},
        {"from_path": "/a/b-c"},
        {"from_path": "/a/B"},
        {"from_path": "/a/b "},
        {"from_path": "/a/b0"},
        {"type": "rename", "from_path": "/x", "to_path": "/a/b/c"},
        {"type": "rename", "from_path": "/a", "to_path": "/z"},
        {"type": "delete", "from_path": "/a"},
        {"type": "modify", "from_path": "/a"},
        {"from_path": "/a/b/c", "user_id": "43"},
        {"from_path": "/a/b/c", "fs": "share"},
    ]
    kept.keep(database, [kept.row(n, **columns) for n, columns in enumerate(rows, start=1)])
    asked = Question(user_id="42", fs="my", path="/a/b")
    assert positions(read(database, asked)) == [9, 8, 7, 2, 1]
    assert positions(read(database, asked._replace(user_id=None))) == [11, 9, 8, 7, 2, 1]


@pytest.mark.parametrize("name", ["a" * 4_000, "é" * 2_000, "ab" * 1_024, "b" * 400])
def test_a_path_is_found_however_long_it_is(database: Database, name: str) -> None:
    """Beyond what an index entry can hold, and up to there."""
    others = [f"/d/{name}x", f"/d/{name[:-1]}", f"/d/{name[:256]}/x"]
    renamed = {"type": "rename", "from_path": "/x", "to_path": f"/d/{name}"}
    kept.keep(
        database,
        [
            kept.row(1, from_path=f"/d/{name}", file_id="f"),
            kept.row(2, **renamed, file_id="f"),
            *(kept.row(n, from_path=other, file_id="f") for n, other in enumerate(others, start=3)),
        ],
    )
    asked = Question(user_id="42", path=f"/d/{name}")
    assert positions(read(database, asked)) == [2, 1]
    assert positions(read(database, asked._replace(path="/d"))) == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("last", ["x", "\U0010ffff"])
@pytest.mark.parametrize("length", [254, 255, 256, 257])
def test_a_path_is_found_where_the_beginnings_in_an_index_end(
    database: Database, length: int, last: str
) -> None:
    path = "/d/" + "p" * (length - 4) + last
    others = [f"{path}y", f"{path[:-1]}z", path[:-1], f"{path}\U0010ffff"]
    found = [path, f"{path}/x", f"{path}/x/\U0010ffff"]
    kept.keep(
        database,
        [kept.row(n, from_path=each) for n, each in enumerate([*found, *others], start=1)],
    )
    assert positions(read(database, Question(user_id="42", path=path))) == [3, 2, 1]


def test_a_path_is_not_looked_for_among_any_number_that_begin_alike(
    database: Database, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index over beginnings would name all of them, and each would be read."""
    monkeypatch.setattr(history, "FEW", 4)
    folder = "/" + "d" * 300
    kept.keep(database, [kept.row(n, from_path=f"{folder}/{n}") for n in range(1, 11)])
    asked = Question(user_id="42", path=f"{folder}/rare")
    found = database.read(lambda db: history._positions(db, asked))
    assert found == (None if engine == "mariadb" else set()), "None: by a walk, which has an end"
    assert read(database, asked) == []


@pytest.mark.parametrize(
    ("text", "behind"),
    [("/a", "/b"), ("/\ud7ff", "/\ue000"), ("/a\U0010ffff", "/b"), ("/\U0010ffff", "0")],
)
def test_what_is_behind_all_that_begin_alike(text: str, behind: str) -> None:
    assert history._behind(text) == behind
    assert text.encode() < behind.encode()


# Against a model that looks at every row.

PATHS = ("/a", "/a/b", "/a/b/c", "/a0", "/ab", "/A/b")
USERS = ("1", "2")


@st.composite
def rows_of_a_journal(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw rows whose times mostly rise: a clock that is set back makes others."""
    found = []
    for position in range(1, draw(st.integers(1, 25)) + 1):
        kind = draw(st.sampled_from(["create", "modify", "rename", "delete"]))
        minutes = position + draw(st.sampled_from([0, 0, 0, -5]))
        found.append(
            kept.row(
                position,
                user_id=draw(st.sampled_from(USERS)),
                actor_id=draw(st.sampled_from([None, None, *USERS])),
                type=kind,
                file_id=draw(st.sampled_from(["f", "g"])),
                from_path=draw(st.sampled_from(PATHS)),
                to_path=draw(st.sampled_from(PATHS)) if kind == "rename" else None,
                rejected=draw(st.sampled_from([None, None, None, "why"])),
                recorded_at=START + timedelta(minutes=minutes),
            )
        )
    return found


TIMES = st.none() | st.integers(-6, 26).map(lambda minutes: START + timedelta(minutes=minutes))
QUESTIONS = st.builds(
    Question,
    user_id=st.none() | st.sampled_from(USERS),
    fs=st.none() | st.just("my"),
    path=st.none() | st.sampled_from(["/", *PATHS]),
    file_id=st.none() | st.just("f"),
    actor=st.none() | st.sampled_from(USERS),
    types=st.none() | st.sampled_from([("delete",), ("create", "rename")]),
    since=TIMES,
    until=TIMES,
    told=st.booleans(),
    after=st.sampled_from([0, 0, 3, 12]),
)


def fits(row: dict[str, Any], asked: Question) -> bool:
    equal = {"user_id": asked.user_id, "file_id": asked.file_id}
    actor = row["actor_id"] or row["user_id"]
    return (
        all(value is None or row[name] == value for name, value in equal.items())
        and asked.actor in {None, actor}
        and (asked.types is None or row["type"] in asked.types)
        and (asked.since is None or row["recorded_at"] >= asked.since)
        and (asked.until is None or row["recorded_at"] < asked.until)
        and not (asked.told and row["rejected"])
        and row["position"] > asked.after
        and (asked.path in {None, "/"} or touches(row, str(asked.path)))
    )


def touches(row: dict[str, Any], path: str) -> bool:
    names = [name for name in (row["from_path"], row["to_path"]) if name]
    moved = row["type"] in {"rename", "delete"}
    return any(
        uri.at_or_below(name, path) or (moved and name != path and uri.at_or_below(path, name))
        for name in names
    )


@hypothesis.given(data=st.data())
@hypothesis.settings(
    max_examples=8, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_whatever_is_asked_the_answer_is_what_a_look_at_every_row_gives(
    database: Database, data: st.DataObject
) -> None:
    """By an index or by a walk, in pages of any size."""
    rows = data.draw(rows_of_a_journal())
    reused.empty(database.engine.url.render_as_string(hide_password=False))
    kept.keep(database, rows)
    with pytest.MonkeyPatch.context() as patch:
        for question in data.draw(st.lists(QUESTIONS, min_size=5, max_size=5)):
            patch.setattr(history, "LOOK_ROWS", data.draw(st.sampled_from([3, 10_000])))
            patch.setattr(history, "FEW", data.draw(st.sampled_from([0, 4, 2_000])))
            patch.setattr(history, "KEYS", data.draw(st.sampled_from([2, 1_000])))
            found = read(database, question, data.draw(st.sampled_from([1, 3, 100])))
            expected = [row["position"] for row in reversed(rows) if fits(row, question)]
            assert positions(found) == expected, question


# Plans.

MANY = 5_000


@pytest.fixture
def full(database: Database) -> Database:
    """Give a journal of which a fiftieth is the user's, and a file's hundred rows are few."""
    kept.keep(
        database,
        (
            kept.row(
                n,
                user_id=str(n % 50),
                actor_id="a" if n % 100 == 7 else None,
                from_path=f"/d/{n // 50 % 20}/{n}",
                recorded_at=START + timedelta(minutes=n),
            )
            for n in range(1, MANY + 1)
        ),
    )
    plans.analyze(database)
    return database


def plan(database: Database, question: Question) -> str:
    return plans.of(database, lambda db: history.page(db, question, MANY, 10))


@pytest.mark.parametrize(
    ("question", "indexes"),
    [
        (Question("7", path="/d/3/7"), ["user_from", "user_to"]),
        (Question("7", path="/d/3"), ["user_from", "user_to"]),
        (Question("7", since=START, until=START + timedelta(hours=9)), ["user_time"]),
        (Question(actor="a", since=START + timedelta(hours=80)), ["actor_time", "user_time"]),
        (Question("7", types=("delete",)), ["user_"]),
    ],
)
def test_a_question_is_answered_by_its_index(
    full: Database, question: Question, indexes: list[str]
) -> None:
    found = plan(full, question)
    for name in indexes:
        assert f"file_event_journal_{name}" in found
    assert plans.WHOLE[full.engine.dialect.name] not in found


def test_where_a_folder_begins_is_read_by_the_indexes_over_paths(full: Database) -> None:
    """However much of its user's lies behind it."""
    found = plans.of(full, lambda db: history.begun(db, "7", "my", "/d/3"))
    for name in ("user_from", "user_to"):
        assert f"file_event_journal_{name}" in found
    assert plans.WHOLE[full.engine.dialect.name] not in found


def test_the_newest_rows_are_read_by_the_primary_key(
    full: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LOOK_ROWS", 200)  # of 5,000: those of 10,000 are not all
    name = full.engine.dialect.name
    found = plan(full, Question(file_id="f"))
    assert plans.PRIMARY[name] in found
    assert plans.WHOLE[name] not in found


def test_no_page_asks_for_more_than_a_few_statements(full: Database) -> None:
    seen = statements.watch(full.engine)
    full.read(_ask_all)
    assert len([one for one in seen if one.startswith("SELECT")]) < 20


def _ask_all(connection: Connection) -> None:
    for question in (Question(), Question("7"), Question("7", path="/d"), Question(actor="a")):
        history.page(connection, question, MANY, 1_000)

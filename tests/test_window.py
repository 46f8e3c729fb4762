"""The window holds every row between its ends, and says so when it does not."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from events_app.event import Point, Row
from events_app.window import Window

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(position: int, user: str = "42") -> Row:
    return Row(position, position * 7, user, "my", "create", "f", "/a", None, None, None, NOW, None)


def positions(rows: list[Row] | None) -> list[int] | None:
    return None if rows is None else [each.position for each in rows]


def test_a_reader_gets_its_users_rows_after_its_position() -> None:
    window = Window(Point(10, 1))
    window.extend([row(11), row(12, "43"), row(13)])
    assert positions(window.after("42", 10)) == [11, 13]
    assert positions(window.after("42", 11)) == [13]
    assert positions(window.after("42", 13)) == []
    assert positions(window.after("nobody", 10)) == []
    assert window.end == Point(13, 13 * 7)


def test_a_reader_behind_the_window_is_sent_to_the_database() -> None:
    window = Window(Point(10, 1))
    assert window.after("42", 10) == []
    assert window.after("42", 9) is None


def test_the_oldest_rows_leave_a_full_window_and_leave_nothing_behind() -> None:
    window = Window(Point(0, 0), rows=2)
    window.extend([row(1, "41"), row(2), row(3)])
    assert window.start == 1
    assert window.after("41", 0) is None
    assert window.after("41", 1) == []
    assert positions(window.after("42", 1)) == [2, 3]
    assert "41" not in window._of_user


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=40),
    st.integers(1, 10),
    st.integers(0, 41),
    st.sampled_from(["a", "b", "c"]),
)
def test_whatever_it_answers_is_complete(
    users: list[str], most: int, position: int, asking: str
) -> None:
    window = Window(Point(0, 0), rows=most)
    rows = [row(number, user) for number, user in enumerate(users, start=1)]
    for each in rows:
        window.extend([each])
    expected = [each for each in rows if each.user_id == asking and each.position > position]
    found = window.after(asking, position)
    assert found is None or found == expected
    assert (found is None) == (position < max(0, len(rows) - most))

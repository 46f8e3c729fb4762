"""The histories that the fold is timed with are valid, told, folded rightly and in linear time."""

from __future__ import annotations

import itertools

import pytest

from bench import fold, fold_remains
from bench.file_app import App, Place
from events_app import merge
from tests.client_tree import Tree

ROWS = 200
LONGER = 10
# A little more than in proportion: never quadratic.
MOST_GROWTH = 12
RANDOM_ROWS = 40
RANDOM_APPS = 100


def tree_of(places: dict[str, Place]) -> Tree:
    def path(file_id: str) -> str:
        if not file_id:
            return ""
        folder_id, name = places[file_id]
        return f"{path(folder_id)}/{name}"

    return Tree((path(file_id), file_id) for file_id in places)


def check(app: App) -> None:
    before = tree_of(app.before)
    client = before.copy().apply(row for row in app.rows if row.own)
    server = before.copy()
    for row in app.rows:
        there = server.ids()
        arrives_at = row.to_path or (row.from_path if row.type == "create" else "")
        assert arrives_at not in there, f"nothing tells of the end of what {row} replaces"
        assert row.type == "create" or there[row.from_path] == row.file_id, row
        server.apply([row])
    assert server.ids() == tree_of(app.places()).ids()
    assert client.apply(merge.fold(app.rows)).ids() == server.ids()


@pytest.mark.parametrize("name", fold.KINDS)
def test_a_history_whose_fold_is_timed(name: str) -> None:
    app = App(seed=1)
    fold.KINDS[name].write(app, ROWS)
    assert len(app.rows) >= ROWS
    check(app)


@pytest.mark.parametrize("name", fold.KINDS)
def test_ten_times_more_rows_cost_about_ten_times_more(name: str) -> None:
    shorter, longer = (fold.count_operations(name, rows) for rows in (ROWS, LONGER * ROWS))
    assert longer <= MOST_GROWTH * shorter


def test_random_histories_whose_fold_is_counted() -> None:
    for app in itertools.islice(fold_remains.random_apps(RANDOM_ROWS), RANDOM_APPS):
        check(app)
        assert len(merge.fold(app.rows)) >= fold_remains.least(app)

"""Law 7 of the fold: a second delivery heals, whatever of the first one arrived."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from events_app import merge
from tests import histories
from tests.client_tree import Tree
from tests.histories import History, law


@given(
    histories.told,
    histories.cuts,
    histories.numbers,
    histories.numbers,
    st.none() | histories.numbers,
    histories.cuts,
)
@law
def test_law_7_a_second_delivery_heals_whatever_was_delivered(
    history: History, cuts: list[int], page: int, told: int, looked: int | None, others: list[int]
) -> None:
    """The first one broke off anywhere; the client may have looked things up, soon or late."""
    client, read = _first_delivery(history, cuts, page, told)
    if looked is not None:
        client.look_up_dirty(_server_at(history, max(read[-1], looked)))
    for again in histories.pages(history.rows, others):
        client.apply(merge.fold(again, repeated=True))
    _assert_healed(client, history)


@given(
    histories.told,
    histories.cuts,
    histories.numbers,
    histories.numbers,
    histories.numbers,
    st.booleans(),
)
@law
def test_law_7_what_follows_a_second_delivery_is_told_once(
    history: History,
    cuts: list[int],
    page: int,
    told: int,
    start: int,
    looked: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
) -> None:
    """It begins with any page that was sent, and nothing was sent of what follows."""
    client, read = _first_delivery(history, cuts, page, told)
    *begins, end = read
    if looked:
        client.look_up_dirty(_server_at(history, end))
    begin = begins[start % len(begins)]
    run, then = history.rows[begin:end], history.rows[end:]
    client.apply(merge.fold(run, repeated=True, then=then))
    _assert_healed(client, history)


@given(histories.told)
@law
def test_law_2_holds_in_a_second_delivery_too(history: History) -> None:
    client = history.before.copy(strict=False).apply(merge.fold(history.rows, repeated=True))
    assert history.after().dirty() <= client.dirty()


@given(histories.told, histories.numbers, histories.numbers, st.booleans())
@law
def test_law_7_a_third_delivery_heals_too(
    history: History,
    first: int,
    second: int,
    looked: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
) -> None:
    client = history.before.copy(strict=False)
    again = merge.fold(history.rows, repeated=True)
    for told in (merge.fold(history.rows)[:first], again[:second], again):
        client.apply(told)
        if looked:
            client.look_up_dirty(history.after())
    _assert_healed(client, history)


def _first_delivery(
    history: History, cuts: list[int], page: int, told: int
) -> tuple[Tree, list[int]]:
    """Return the client to which some pages and a part of one more went.

    With it come the numbers of the rows with which each of these begins, and where the last ends.
    """
    pages = histories.pages(history.rows, cuts)
    pages = pages[: page % len(pages) + 1]
    client = history.before.copy(strict=False)
    for whole in pages[:-1]:
        client.apply(merge.fold(whole))
    client.apply(merge.fold(pages[-1])[:told])
    return client, [0, *accumulate(map(len, pages))]


def _server_at(history: History, rows: int) -> Tree:
    return history.before.copy().apply(history.rows[:rows])


def _assert_healed(client: Tree, history: History) -> None:
    server = history.after()
    assert client.look_up_dirty(server).contents() == server.contents()

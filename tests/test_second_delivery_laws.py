"""Law 7 of the fold: a second delivery heals, whatever of the first one arrived."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from events_app import merge
from events_app.event import Change
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
    st.booleans(),
)
@law
def test_law_7_a_second_delivery_heals_whatever_was_delivered(
    history: History,
    cuts: list[int],
    page: int,
    told: int,
    looked: int | None,
    others: list[int],
    checks_ids: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
) -> None:
    """The first one broke off anywhere; the client may have looked things up, soon or late."""
    client, read = _first_delivery(history, cuts, page, told, checks_ids=checks_ids)
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
    checks_ids: bool,  # noqa: FBT001 -- as above
) -> None:
    """It begins with any page that was sent, and nothing was sent of what follows."""
    client, read = _first_delivery(history, cuts, page, told, checks_ids=checks_ids)
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


@given(histories.told, histories.numbers, histories.numbers, st.booleans(), st.booleans())
@law
def test_law_7_a_third_delivery_heals_too(
    history: History,
    first: int,
    second: int,
    looked: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
    checks_ids: bool,  # noqa: FBT001 -- as above
) -> None:
    client = history.before.copy(strict=False, checks_ids=checks_ids)
    again = merge.fold(history.rows, repeated=True)
    heard = _heard(history.rows, first, checks_ids=checks_ids)
    for told in (heard, again[:second], again):
        client.apply(told)
        if looked:
            client.look_up_dirty(history.after())
    _assert_healed(client, history)


def _first_delivery(
    history: History, cuts: list[int], page: int, told: int, *, checks_ids: bool
) -> tuple[Tree, list[int]]:
    """Return the client to which some pages and a part of one more went.

    With it come the numbers of the rows with which each of these begins, and where the last ends.
    """
    pages = histories.pages(history.rows, cuts)
    pages = pages[: page % len(pages) + 1]
    client = history.before.copy(strict=False, checks_ids=checks_ids)
    for whole in pages[:-1]:
        client.apply(merge.fold(whole))
    client.apply(_heard(pages[-1], told, checks_ids=checks_ids))
    return client, [0, *accumulate(map(len, pages))]


def _heard(run: list[Change], told: int, *, checks_ids: bool) -> list[Change]:
    """Fold `run` and leave so much of it: a client that goes by ids applies batches whole.

    Else something may stand where it stepped aside, which nobody's history says.
    """
    folded = merge.fold(run)
    return folded if checks_ids else folded[:told]


def _server_at(history: History, rows: int) -> Tree:
    return history.before.copy().apply(history.rows[:rows])


def _assert_healed(client: Tree, history: History) -> None:
    server = history.after()
    assert client.look_up_dirty(server).contents() == server.contents()

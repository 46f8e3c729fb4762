"""What PHP and Go programs commit is heard by an ordinary SSE client, and nothing else.

The programs run under the app's role, the server under the sidecar's.
"""

import random
import uuid

import pytest
from sqlalchemy import text

from tests import serving
from tests.writers import programs, roles
from tests.writers.listening import Change, changes, listening, wait, wait_for_changes

FIRST = (
    *("create", "/modified.md"),
    *("create", "/moved.md"),
    *("create", "/deleted.md"),
    *("create", "/new.tmp"),
    *("create", "/replaced.md"),
    *("create", "/kept.md"),
    *("create-folder", "/docs"),
    *("create", "/docs/ä b%25.md"),
)

# Each file is changed once, so that there is nothing to fold.
THEN = (
    *("modify", "/modified.md"),
    *("fail", "modify", "/kept.md"),
    *("rename", "/moved.md", "/moved here.md"),
    *("rename", "/new.tmp", "/replaced.md"),
    *("fail", "rename", "/kept.md", "/modified.md"),
    *("delete", "/deleted.md"),
    *("fail", "delete", "/docs"),
    *("rename", "/docs", "/Docs 日本 'quoted' \\"),
    *("fail", "create", "/never.md"),
    *("create", "/last.md"),
)

THEN_CHANGES = [
    ("modify", "/modified.md", ""),
    ("rename", "/moved.md", "/moved here.md"),
    ("delete", "/replaced.md", ""),
    ("rename", "/new.tmp", "/replaced.md"),
    ("delete", "/deleted.md", ""),
    ("rename", "/docs", "/Docs 日本 'quoted' \\"),
    ("create", "/last.md", ""),
]

PATHS_AT_THE_END = {
    "/modified.md",
    "/moved here.md",
    "/replaced.md",
    "/kept.md",
    "/Docs 日本 'quoted' \\",
    "/Docs 日本 'quoted' \\/ä b%25.md",
    "/last.md",
}


def client() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def user() -> str:
    """Give each test a user of its own."""
    return uuid.uuid4().hex


def tree(granted: roles.Roles, user: str) -> dict[str, str]:
    """Read the app's own table: path to id."""
    with granted.engine("app").connect() as connection:
        found = connection.execute(
            text("SELECT path, id FROM files WHERE owner_id = :user"), {"user": user}
        )
        return {row.path: row.id for row in found}


def journalled(granted: roles.Roles, user: str) -> list[tuple[str, ...]]:
    """Read what was moved of one user, as the sidecar may."""
    with granted.engine("sidecar").connect() as connection:
        return [
            tuple(row)
            for row in connection.execute(
                text(
                    "SELECT type, from_path, COALESCE(client_id, ''), COALESCE(actor_id, ''), "
                    "COALESCE(rejected, '') FROM file_event_journal "
                    "WHERE user_id = :user ORDER BY position"
                ),
                {"user": user},
            )
        ]


def waiting(granted: roles.Roles, user: str) -> int:
    """Count the rows of one user that are still in the outbox."""
    with granted.engine("sidecar").connect() as connection:
        count: int = connection.execute(
            text("SELECT COUNT(*) FROM file_event_outbox WHERE user_id = :user"), {"user": user}
        ).scalar_one()
        return count


def test_what_was_committed_is_heard_in_order_and_what_was_rolled_back_is_not(
    sidecar: serving.Server, granted: roles.Roles, program: programs.Program, user: str
) -> None:
    """Every type of change, each with its row in one transaction; failures among them."""
    app = granted.app
    with listening(sidecar, user, client()) as listener:
        first = program.run(app, user, *FIRST)
        assert (first.exit_code, first.complaints) == (0, "")
        assert wait_for_changes(listener, len(first.changes)) == first.changes

        then = program.run(app, user, *THEN)
        assert [(c["type"], c["from"], c["to"]) for c in then.changes] == THEN_CHANGES
        told = wait_for_changes(listener, len(first.changes) + len(THEN_CHANGES))

    assert told == first.changes + then.changes
    assert then.complaints.count("rolled back: ") == 4
    assert then.complaints.count("asked to fail before the commit") == 4
    assert set(tree(granted, user)) == PATHS_AT_THE_END
    assert len(journalled(granted, user)) == len(told)


def test_a_row_that_is_refused_takes_the_change_back_with_it(
    sidecar: serving.Server, granted: roles.Roles, program: programs.Program, user: str
) -> None:
    """The outbox refuses an actor of 65 characters; the file is not there then either."""
    app = granted.app
    refused = program.run(app, user, "create", "/refused.md", actor="x" * 65)
    assert (refused.exit_code, refused.changes) == (1, [])
    assert "rolled back: create /refused.md" in refused.complaints
    assert tree(granted, user) == {}

    with listening(sidecar, user, client()) as listener:
        program.run(app, user, "create", "/accepted.md")
        told = wait_for_changes(listener, 1)
    assert [change["from"] for change in told] == ["/accepted.md"]
    assert [row[1] for row in journalled(granted, user)] == ["/accepted.md"]
    assert waiting(granted, user) == 0


@pytest.mark.parametrize("form", ["{}", "{{{}}}", "urn:uuid:{}"], ids=["plain", "braced", "urn"])
def test_a_client_does_not_hear_what_it_did_itself_and_others_do(
    sidecar: serving.Server, granted: roles.Roles, program: programs.Program, user: str, form: str
) -> None:
    """The header may write the client id in any form of a UUID, in either case."""
    app, own = granted.app, client()
    with listening(sidecar, user, own) as writer, listening(sidecar, user, client()) as other:
        mine = program.run(app, user, "create", "/mine.md", client_id=form.format(own.upper()))
        theirs = program.run(app, user, "create", "/theirs.md")
        assert wait_for_changes(other, 2) == mine.changes + theirs.changes
        assert wait_for_changes(writer, 1) == theirs.changes
    assert [row[2] for row in journalled(granted, user)] == [own, ""]


def test_a_client_id_that_is_none_is_left_out_and_hurts_nothing(
    sidecar: serving.Server, granted: roles.Roles, program: programs.Program, user: str
) -> None:
    """The header is the client's word, of any length; the app's transaction must not fail on it."""
    app = granted.app
    with listening(sidecar, user, client()) as listener:
        made = program.run(app, user, "create", "/a.md", client_id="no uuid, " * 20)
        assert (made.exit_code, made.complaints) == (0, "")
        assert wait_for_changes(listener, 1) == made.changes
    assert [row[2] for row in journalled(granted, user)] == [""]


def test_somebody_elses_work_in_the_tree_is_heard_by_its_owner(
    sidecar: serving.Server, granted: roles.Roles, program: programs.Program, user: str
) -> None:
    """With an actor the client id belongs to the actor, not to the owner's own client."""
    app, own = granted.app, client()
    with listening(sidecar, user, own) as listener:
        made = program.run(app, user, "create", "/a.md", actor="7", client_id=own)
        assert wait_for_changes(listener, 1) == made.changes
    assert journalled(granted, user) == [("create", "/a.md", own, "7", "")]


def test_a_row_that_is_written_twice_under_one_key_is_heard_once(
    sidecar: serving.Server, granted: roles.Roles, program: programs.Program, user: str
) -> None:
    """The second one is kept as a duplicate; the stream goes on."""
    app = granted.app
    with listening(sidecar, user, client()) as listener:
        once = program.run(app, user, "create", "/a.md", key="request-9")
        again = program.run(app, user, "modify", "/a.md", key="request-9")
        assert again.exit_code == 0
        other = program.run(app, user, "create", "/b.md", key="request-10")
        assert wait_for_changes(listener, 2) == once.changes + other.changes
        frames = {frame.name for frame in listener.transcript.read()}
    assert "reconnect-required" not in frames
    assert [row[4] for row in journalled(granted, user)] == ["", "duplicate", ""]


def test_a_client_hears_what_was_committed_while_the_server_was_down(
    sidecar: serving.Server, granted: roles.Roles, program: programs.Program, user: str
) -> None:
    """The app needs no server to commit; the client comes back and has missed nothing."""
    with listening(sidecar, user, client()) as listener:
        before = program.run(granted.app, user, "create", "/before.md")
        wait_for_changes(listener, 1)
        sidecar.stop()
        missed = program.run(granted.app, user, "create", "/missed.md", "modify", "/before.md")
        assert missed.exit_code == 0
        sidecar.start()
        assert wait_for_changes(listener, 3) == before.changes + missed.changes
        names = [frame.name for frame in listener.transcript.read()]
    assert names.count("subscribed") == 1
    assert "resumed" in names


def random_operations(generator: random.Random, count: int) -> list[str]:
    """Make operations on a handful of paths, a fifth of which fail before their commit."""
    paths = [f"/{name}.md" for name in "abcdef"]
    words: list[str] = []
    for _ in range(count):
        if generator.random() < 0.2:
            words.append("fail")
        verb = generator.choice(["create", "create", "modify", "rename", "delete"])
        words += [verb, *generator.sample(paths, 2 if verb == "rename" else 1)]
    return words


def apply(state: dict[str, str], told: list[Change]) -> dict[str, str]:
    """Do to a client's tree, path to id, what it was told."""
    for change in told:
        if change["type"] == "create":
            state[change["from"]] = change["file_id"]
        elif change["type"] == "rename":
            state.pop(change["from"], None)
            state[change["to"]] = change["file_id"]
        elif change["type"] == "delete":
            state.pop(change["from"], None)
    return state


def test_racing_writers_of_both_languages_leave_every_client_with_the_apps_own_tree(
    sidecar: serving.Server,
    granted: roles.Roles,
    php: programs.Program,
    go: programs.Program,
    user: str,
) -> None:
    """Two PHP and two Go processes race for the same six files of one user."""
    app, generator = granted.app, random.Random(8)  # noqa: S311 -- no secret
    with listening(sidecar, user, client()) as one, listening(sidecar, user, client()) as two:
        racing = [
            program.start(app, user, *random_operations(generator, 60))
            for program in (php, go, php, go)
        ]
        outcomes = [programs.outcome(process) for process in racing]
        written = sum(len(outcome.changes) for outcome in outcomes)
        last = php.run(app, user, "create", "/last.md").changes
        truth = tree(granted, user)
        for listener in (one, two):
            wait(listener, lambda frames: last[0] in changes(frames))
            assert apply({}, changes(listener.transcript.read())) == truth
    assert len(journalled(granted, user)) == written + 1
    assert written > 40
    assert all(outcome.exit_code == 1 for outcome in outcomes), "nothing was rolled back"

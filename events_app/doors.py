"""Every door, said once for the document and the page: what it takes and what it answers.

Rules
    Nothing here decides anything: parameters, limits, shapes and errors are those that the doors
    themselves use. Texts are Markdown, their links relative to docs/reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from werkzeug.exceptions import HTTPException, RequestTimeout

from events_app import (
    api,
    append,
    asking,
    console,
    errors,
    pieces,
    recall,
    shapes,
    sse,
    writing,
)
from events_app.parameter import Parameter
from events_app.settings import Settings

DOCUMENT_PATH = "/openapi.json"
JSON = "application/json"


class Answer(NamedTuple):
    """What a door answers when all is well; without a shape it is no JSON."""

    status: int
    meaning: str
    shape: type[Struct] | None = None
    media: str = JSON
    headers: Mapping[str, str | None] = {}
    """The headers that are always there, with their value where it is always the same."""
    example: Struct | None = None
    bare: bool = False
    """Whether the shape is the whole document, without `code`, `msg` and `data` around it."""


class Refusal(NamedTuple):
    """When a door answers an error; `data` is the shape of what it tells programs, if anything."""

    error: type[errors.RequestError | HTTPException]
    when: str
    data: type[Struct] | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        if issubclass(self.error, errors.RequestError):
            return self.error.status
        return self.error.code or errors.Unforeseen.status

    @property
    def code(self) -> int:
        """The `code` of the document."""
        if issubclass(self.error, errors.RequestError):
            return self.error.code
        return self.status


class Door(NamedTuple):
    """One method of one path."""

    name: str
    method: str
    path: str
    heading: str
    text: str
    answers: tuple[Answer, ...]
    command: str = ""
    parameters: tuple[Parameter[Any], ...] = ()
    headers_only: bool = False
    """Whether a parameter that has a header is taken from there alone."""
    bodies: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    notes: str = ""


_WRONG_TYPE = Refusal(errors.WrongTokenType, "a verified token of the wrong type")
_NO_TOKEN = Refusal(errors.Unauthorized, "no, bad, expired or revoked token")
_UNFORESEEN = Refusal(errors.Unforeseen, "anything unforeseen")
_AWAY = "the database is away"

# In the order of the checks.
READING = (
    _WRONG_TYPE,
    Refusal(
        errors.MissingScope,
        "a verified token without the scope `Files.Read` or `Files.Write`, or a service's",
    ),
    _NO_TOKEN,
    Refusal(errors.EventsDisabled, "events are switched off"),
    Refusal(errors.BadParameter, "a bad `uri`, client id or other parameter"),
    Refusal(errors.ForeignFolder, "someone else's folder"),
)
WRITING = (
    _WRONG_TYPE,
    Refusal(errors.MissingScope, "a verified token without the scope `Files.Write`"),
    _NO_TOKEN,
)
_NO_STORE = {"Cache-Control": "no-store"}
_TO_BE_CHECKED = {"ETag": None, "Cache-Control": "no-cache"}

_ADDRESS = "http://127.0.0.1:8000"
_CURL = 'curl -H "Authorization: Bearer $TOKEN"'
_CLIENT_ID = "0b6c4a1e-8c0a-4f0e-9c55-6d1f2a3b4c5d"
_PAGE = shapes.Page(
    events=[shapes.Change(type="create", file_id="f1", from_path="/a", to="")],
    cursor="AQAAAABpIXyAAAAAAAAAAAF2B4wBq2Jh7xC2nDU",
    more=False,
)
_PAST = shapes.Past(
    events=[
        shapes.PastChange(
            type="rename",
            file_id="f3",
            from_path="/a/old.md",
            to="/a/new.md",
            position=1204,
            created_at="2026-11-22T03:38:31.000000Z",
            recorded_at="2026-11-22T03:38:31.120394Z",
            actor_id=None,
            client_id=_CLIENT_ID,
        )
    ],
    next="1204",
)

FRAMES = (
    (sse.SUBSCRIBED, "you have no past here that can be continued: list the folder now"),
    (sse.RESUMED, "everything since your last position follows, without exception"),
    (sse.EVENT, "what has changed up to `id`, in an order in which it can be applied"),
    (sse.KEEP_ALIVE, "all is well, nothing happened"),
    (sse.RECONNECT_REQUIRED, "the last frame: come back"),
)


def _stream(settings: Settings) -> Door:
    return Door(
        name="stream",
        method="GET",
        path=api.EVENTS_PATH,
        heading="Stream",
        command=f"""\
{_CURL} -N -H "X-Cr-Client-Id: {_CLIENT_ID}" \\
  "{_ADDRESS}{api.EVENTS_PATH}?uri=cloudreve://my/docs\"""",
        text="""\
Tells the changes below one folder as they come, for as long as the connection lives. What a
client does with each frame, and what it is promised, says the [protocol](protocol.md).""",
        parameters=(
            asking.folder(settings.uri_scheme),
            asking.CLIENT_ID,
            asking.LAST_EVENT_ID,
            asking.payload(settings.payload),
        ),
        answers=(
            Answer(
                200,
                "Server-sent events without end. The first frame comes within a second.",
                media=api.STREAM_MEDIA,
                headers={
                    name: text
                    for name, text in api.STREAM_HEADERS.items()
                    if name != "Content-Type"
                },
            ),
        ),
        refusals=(
            *READING,
            Refusal(
                errors.TooManyStreams,
                "too many streams for this user, for this client id on this folder, or for this"
                " worker",
            ),
            _UNFORESEEN,
        ),
        notes="""\
The parameters in the query are there because a browser's `EventSource` cannot set headers; a
header wins. While the database is away a stream is not refused but
[held](protocol.md#connecting-again). `HEAD` answers the headers and opens nothing.""",
    )


def _changes(settings: Settings) -> Door:
    return Door(
        name="changes",
        method="GET",
        path=api.CHANGES_PATH,
        heading="Changes",
        command=f"""\
{_CURL} "{_ADDRESS}{api.CHANGES_PATH}?cursor=$CURSOR&wait=50\"""",
        text="""\
The same as pages, for clients that cannot hold a stream: the same folder, folding and cursors.
How it is used: [follow a folder without a stream](../how-to/follow-without-a-stream.md).""",
        parameters=(
            asking.folder(settings.uri_scheme),
            asking.CLIENT_ID,
            asking.CURSOR,
            api.LIMIT,
            api.WAIT,
        ),
        answers=(
            Answer(
                200,
                "A page; it may be empty.",
                shapes.Page,
                headers=_NO_STORE,
                example=_PAGE,
            ),
        ),
        refusals=(
            *READING,
            Refusal(
                errors.CannotResume,
                "a cursor that cannot be honoured, for a `reason` for which a stream would begin"
                " with `subscribed`",
                shapes.FreshStart,
            ),
            Refusal(errors.TooManyStreams, "with `wait`: as for streams, whose caps count"),
            Refusal(errors.DatabaseAway, _AWAY),
            _UNFORESEEN,
        ),
        notes="""\
- **List, then follow, misses nothing**: first ask without a cursor, which answers at once; then
  list the folder; then follow from that cursor. What happens while you list is told as well.
- A page has what has settled, as a stream would send it; what has not is in a later one. `events`
  may be empty, and `cursor` moves all the same: always go on from the newest one.
- Apply the page, then store its cursor. The same cursor may be asked for again, so an answer that
  was lost is not.
- After a 410 list the folder, then go on from the fresh `cursor`, which is from before the
  answer.
- Nothing is stored on the server: `cursor` is all there is, and the client id says which changes
  are the client's own. A cursor may go from a stream to pages and back.
- With `wait` the answer comes as soon as a change has settled, or empty in the end. A request
  that waits takes a stream's place and counts against its caps. It is answered at once, with the
  cursor that it has, when the server stops, and when its token expires.
- Before a page that was waited for is told, token and grant are asked about again: 401 where the
  token was revoked meanwhile, 403 where the permission is gone.
- A page may be `EVENTS_POLL_INTERVAL` behind the database.""",
    )


def _history(settings: Settings) -> Door:
    return Door(
        name="history",
        method="GET",
        path=recall.HISTORY_PATH,
        heading="History",
        command=f"""\
{_CURL} "{_ADDRESS}{recall.HISTORY_PATH}?uri=cloudreve://my/docs&limit=1\"""",
        text="""\
What happened below a folder, as it stands in the journal: unfolded, the newest first, in pages.
For people who ask what became of a file. A client that wants to keep up uses the
[stream](#stream) or [changes](#changes).""",
        parameters=(
            asking.folder(settings.uri_scheme),
            asking.CLIENT_ID,
            recall.SINCE,
            recall.UNTIL,
            recall.TYPE,
            recall.BEFORE,
            recall.LIMIT,
        ),
        answers=(
            Answer(
                200,
                "A page; it may be empty.",
                shapes.Past,
                headers=_NO_STORE,
                example=_PAST,
            ),
        ),
        refusals=(*READING, Refusal(errors.DatabaseAway, _AWAY), _UNFORESEEN),
        notes="""\
- As in the stream, what crosses the border of the folder is a `delete` (it left) or a `create`
  (it came in).
- What happened to the folder itself, or to a folder above it, is in the history of the folder
  above.
- In a share you get what happened since its folder came to where it is. What another folder held
  there before was not shared.
- What was [rejected](tables.md#file_event_journal) is not shown, nor is `meta`.
- A page looks at so many rows and no more, so that it takes milliseconds whatever is asked: one
  that has found little, or nothing, and has a `next` only says how far it came. Go on.
- Pages do not shift when something new happens. What retention or pruning has removed is gone
  from here too.
- The client id changes nothing here; it is looked at as everywhere.""",
    )


def _append(settings: Settings) -> Door:
    return Door(
        name="append",
        method="POST",
        path=api.EVENTS_PATH,
        heading="Append",
        command=f"""\
{_CURL} -H "Content-Type: application/json" \\
  -d '[{{"type": "create", "file_id": "f9", "from": "/docs/plan.md"}}]' \\
  "{_ADDRESS}{api.EVENTS_PATH}?wait=10\"""",
        text=f"""\
Writes a batch of changes into the outbox, all of it or nothing. How it is used: [write events by
HTTP](../how-to/write-events-by-http.md). A token with a `client_id` claim needs the scope
`Files.Write`. The scope `Events.Write` makes it a service's, which writes for any user.

The body is a JSON array of changes, or has a change in each line, of which blank ones are
skipped. It is UTF-8 without a byte order mark, and not compressed. It holds at most
{settings.append_max_rows:,} changes (`EVENTS_APPEND_MAX_ROWS`) and {settings.append_max_bytes:,}
bytes (`EVENTS_APPEND_MAX_BYTES`), also if it comes in chunks. One change has at most
{pieces.MAX_CHANGE_CHARACTERS:,} characters, a path at most 4,096 bytes.""",
        parameters=(asking.CLIENT_ID, append.WAIT),
        headers_only=True,
        bodies=tuple(append.FORMS),
        answers=(
            Answer(
                201,
                "The batch is committed.",
                shapes.Accepted,
                headers=_NO_STORE,
                example=shapes.Accepted(accepted=2, first=1204, last=1205),
            ),
        ),
        refusals=(
            *WRITING,
            Refusal(
                errors.UnsupportedBody, "a body of another type or character set, or compressed"
            ),
            Refusal(
                errors.BadParameter,
                "a bad `wait` or `X-Cr-Client-Id`; a body that is no list of changes, is empty or"
                " breaks off",
            ),
            Refusal(errors.BadParameter, "a bad change", shapes.WrongChange),
            Refusal(errors.ForeignUser, "a change of somebody else", shapes.WrongChange),
            Refusal(errors.TooLarge, "too many bytes or changes"),
            Refusal(
                RequestTimeout, f"the body does not come within {append.BODY_SECONDS:g} seconds"
            ),
            Refusal(
                errors.DatabaseAway,
                "the database is away, full or read-only; too many batches at once, or too many of"
                f" more than {writing.SMALL_BYTES // 1024} KiB on their way, of all writers or of"
                " this one",
            ),
            Refusal(
                errors.Unforeseen,
                "the role of events-app lacks INSERT on the outbox; anything unforeseen",
            ),
        ),
        notes="""\
- Paths are cleaned and changes checked as [tables](tables.md#file_event_outbox) says; what would
  be journalled as rejected is refused here. Any other key, a key that comes twice, `NaN`, and
  half of a surrogate pair are refused.
- A change whose `event_key` its user has used before, in another request or in this one, is
  stored a second time, journalled as a duplicate, and told to nobody; `first` and `last` count
  the place of the first one. The contents are not compared. That holds as long as the journal
  keeps the first one (`EVENTS_RETENTION`).
- A user's keys are of one space, whoever writes them: the app by SQL, a service, or a program with
  the user's token. Who knows a key before it is used can have the app's change taken for a
  repetition, so let nobody guess yours where users may write.
- With `wait` the answer comes when the batch is in the journal, or when the time is up. The first
  and the last change that have no `event_key` get one of their own, `traced-…`, by which they are
  found there.
- `X-Cr-Client-Id` is the `client_id` of changes that name none.
- After an error nothing of the batch is written, with one exception: a database that goes away in
  the moment of the commit answers 503 and may have written all of it.
- Batches are accepted while streams are switched off by `EVENTS_ENABLED`.""",
    )


_HEALTHZ = Door(
    name="healthz",
    method="GET",
    path="/healthz",
    heading="Alive",
    text="Whether the event loop of the worker that happens to answer turns. Needs no token.",
    answers=(Answer(200, "It does.", shapes.Well, bare=True),),
)
_READYZ = Door(
    name="readyz",
    method="GET",
    path="/readyz",
    heading="Ready",
    text="Whether a worker can serve: the database answers, the schema is current, mover and tailer"
    " are not stuck. Needs no token.",
    answers=(
        Answer(200, "It can.", shapes.Well, bare=True),
        Answer(503, "It cannot, for this `reason`.", shapes.NotReady, bare=True),
    ),
)
_METRICS = Door(
    name="metrics",
    method="GET",
    path="/metrics",
    heading="Metrics",
    text="The numbers of the worker that happens to answer, for Prometheus: see"
    " [operate](../how-to/operate.md). Needs no token.",
    answers=(Answer(200, "Text for Prometheus.", media=CONTENT_TYPE_LATEST.partition(";")[0]),),
)
_PAGE_HEADERS = {**console.HEADERS, "ETag": None, console.POLICY_HEADER: None}
_CONSOLE = Door(
    name="console",
    method="GET",
    path=console.PATH,
    heading="Console",
    text="A page for people: the stream and the history of one folder, and how the connection is."
    " It asks for a token, and asks these doors with it as any client does; see"
    " [console](../how-to/console.md). Needs no token itself.",
    answers=(
        Answer(200, "The page.", media=console.MEDIA, headers=_PAGE_HEADERS),
        Answer(304, "Still the one whose `ETag` is in `If-None-Match`.", None, "", _PAGE_HEADERS),
    ),
)
_DOCUMENT = Door(
    name="document",
    method="GET",
    path=DOCUMENT_PATH,
    heading="This document",
    text="All of this as OpenAPI 3.1, with the limits and the scheme that this deployment is"
    " configured for. Needs no token.",
    answers=(
        Answer(200, "The document.", headers=_TO_BE_CHECKED),
        Answer(304, "Still the one whose `ETag` is in `If-None-Match`.", None, "", _TO_BE_CHECKED),
    ),
)


def table(settings: Settings) -> tuple[Door, ...]:
    """Return every door as `settings` have it."""
    return (
        _stream(settings),
        _changes(settings),
        _history(settings),
        _append(settings),
        _HEALTHZ,
        _READYZ,
        _METRICS,
        _CONSOLE,
        _DOCUMENT,
    )

"""The HTTP doors: read the request, make one call, answer."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, current_app, request

from events_app import answers, asking, parameter, poll, shapes, sidecar
from events_app.peers import Peer
from events_app.stream import Request

EVENTS_PATH = "/api/v4/file/events"
CHANGES_PATH = f"{EVENTS_PATH}/changes"

LIMIT = parameter.whole_number(
    "limit", 1, 1_000, 500, "At most so many rows of the journal are folded into the page."
)
# What lies between a client and its server cuts connections that are silent for a minute.
WAIT = parameter.seconds("wait", 50, "So many seconds a change is waited for.")

doors = Blueprint("events", __name__)

# Under this name the environment holds the frames themselves, for `app.ShallowStreams`.
FRAMES = "events_app.frames"

STREAM_MEDIA = "text/event-stream"
STREAM_HEADERS = {
    "Content-Type": f"{STREAM_MEDIA}; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


@doors.get(EVENTS_PATH)
def events() -> Response:
    """Open the stream. The checks run in the protocol's order."""
    parts = sidecar.of(current_app)
    settings = parts.settings
    identity = asking.reader(settings)
    last_event_id, payload = asking.LAST_EVENT_ID.asked(), asking.payload(settings.payload).asked()
    # Last: whether a folder is somebody else's is told only when all else is right.
    watcher = asking.watcher(settings, identity)
    good_for = identity.expires_at - parts.clock.wall()
    watcher = parts.mounted_soon(watcher)
    asked = Request(watcher, last_event_id, payload, good_for)
    if request.method == "HEAD":  # nobody would iterate, and so never close, the frames
        return Response(headers=STREAM_HEADERS)
    peer = Peer(request.environ.get("gunicorn.socket"))
    frames = parts.open_stream(asked, peer, identity.claims)
    request.environ[FRAMES] = frames
    return Response(frames, headers=STREAM_HEADERS)


@doors.get(CHANGES_PATH)
def changes() -> Response:
    """Answer a page of changes, which is waited for when the client asks for that."""
    parts = sidecar.of(current_app)
    identity = asking.reader(parts.settings)
    cursor, rows, wait = asking.CURSOR.asked(), LIMIT.asked(), WAIT.asked()
    watcher = asking.watcher(parts.settings, identity)
    good_for = max(0.0, identity.expires_at - parts.clock.wall())
    watcher = parts.mounted(watcher)
    asked = poll.Request(watcher, cursor, rows, min(wait, good_for))
    peer = Peer(request.environ.get("gunicorn.socket"))
    page = parts.answer_poll(asked, peer, identity.claims)
    told = [shapes.change(each) for each in page.changes]
    return answers.success(shapes.Page(events=told, cursor=page.cursor, more=page.more))


def install(app: Flask) -> None:
    """Add the doors."""
    app.register_blueprint(doors)

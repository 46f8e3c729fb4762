"""How gunicorn runs events-app; say the rest on the command line (--bind, --workers)."""

from gevent import monkey

# Before any other import: psycopg that was imported unpatched would silently block the loop.
monkey.patch_all()

import sys

# A reload runs this file again in the same master. All of our code is imported here and inherited
# by the workers: they run what was there at the start or the last reload, never old beside new.
for _name in [name for name in sys.modules if name.partition(".")[0] == "events_app"]:
    del sys.modules[_name]

import fcntl
import functools
import logging
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.http import message

from events_app import admission, errors, garbage, logs, settings, sidecar, start, trial

worker_class = "events_app.worker.Worker"
# Otherwise every ended stream lingers for two seconds.
keepalive = 0
# Streams count as requests, and a worker that drains after so many accepts nothing meanwhile.
max_requests = 0
# Only a blocked event loop is killed by it; streams live as long as they like.
timeout = 60
# One path per user, which two instances would fight for.
control_socket_disable = True
# gunicorn says so itself where there are several workers. A request takes a millisecond before it
# waits for anything: of a storm, only one comes in with each turn of the loop.
StreamServer.max_accept = 1
preload_app = False
# A watched folder of 4,096 bytes takes 20 kB in a query, its escapes being escaped once more.
# gunicorn's own ceiling is lower, and what it refuses gets no JSON.
message.MAX_REQUEST_LINE = 32 * 1024
limit_request_line = message.MAX_REQUEST_LINE - 1
# Without the query, which may hold a token.
access_log_format = '%(h)s "%(m)s %(U)s" %(s)s %(B)s %(D)sus'

# Who spawned whom is kept for every greenlet otherwise: 0.6 KB a stream.
gevent.config.track_greenlet_tree = False

# The end of ten thousand streams is five seconds of work, and more where others work too.
_DRAIN_MARGIN_SECONDS = 15
_OTHER_CONNECTIONS = 3_000
_WATCH_SECONDS = 0.2

# How long one greenlet after the other runs before the loop looks at sockets and timers again, and
# how long SQLite's thread keeps the interpreter from it.
_SWITCH_SECONDS = 0.001


def _grow_descriptor_table() -> None:
    """Take the worker's table of descriptors to its last size.

    The kernel doubles it when it is full. In a process with threads it first waits for every
    processor to leave the old one, with the event loop in the middle of an accept: 40 ms.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = _descriptors if soft == resource.RLIM_INFINITY else min(_descriptors, soft)
    with Path(os.devnull).open() as nothing:
        os.close(fcntl.fcntl(nothing, fcntl.F_DUPFD_CLOEXEC, last - 1))


def _configured() -> settings.Settings:
    try:
        configured = settings.load(os.environ)
        settings.require_keys(configured)
    except errors.SettingsError as error:
        sys.exit(f"events-app does not start.\n{error}")
    return configured


def _raise_descriptor_limit() -> None:
    """Each stream is a descriptor, and so is each connection to the database.

    The usual limit of 1,024 only protects programs that call select(); past it a worker could
    neither accept nor reach its database.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _descriptors
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# A bad variable stops the start here, in one message.
_settings = _configured()
graceful_timeout = int(_settings.drain_seconds) + _DRAIN_MARGIN_SECONDS
logconfig_dict = logs.config(_settings.log_format)
# gunicorn counts sockets and hangs silently at its limit, health checks too. So there is room
# beyond all streams and all who wait for a place: for what is answered at once.
worker_connections = _settings.max_streams + admission.MOST_WAITING + _OTHER_CONNECTIONS
_descriptors = worker_connections + 1_000
_raise_descriptor_limit()


def on_starting(server: Any) -> None:
    """Let a reload be tried first."""
    server.reload = functools.partial(_reload_if_sound, server.reload, server.log)


def _reload_if_sound(reload: Callable[[], None], log: Any) -> None:
    if fault := trial.fault():
        log.error("not reloaded, the workers go on as they are: %s", fault)
        return
    reload()


def pre_fork(server: Any, worker: Any) -> None:
    """Let the workers know of each other: what one does that cannot start depends on it.

    The memory is the master's, for a reload runs this file again.
    """
    if not hasattr(server, "shared_memory"):
        server.shared_memory = start.shared_memory()
    worker.service = start.Service(server.shared_memory)


def post_worker_init(worker: Any) -> None:
    """Start the sidecar's greenlets, and hear of the worker's end in time."""
    # The handler that gunicorn makes for --access-logfile does not outlive logconfig_dict.
    logging.getLogger("gunicorn.access").propagate = bool(worker.cfg.accesslog)
    _grow_descriptor_table()
    worker.collector = garbage.Collector()
    worker.collector.start()
    sys.setswitchinterval(_SWITCH_SECONDS)
    parts = sidecar.of(worker.wsgi)
    parts.start()
    _stop_with(worker, parts)


def _stop_with(worker: Any, parts: sidecar.Sidecar) -> None:
    """Tell the streams at SIGTERM; gunicorn itself would only wait, and then kill them."""
    loop = gevent.get_hub().loop
    inherited = signal.getsignal(signal.SIGTERM)

    def terminate(number: int, frame: Any) -> None:
        loop.run_callback_threadsafe(parts.stop)
        if callable(inherited):
            inherited(number, frame)

    signal.signal(signal.SIGTERM, terminate)
    gevent.spawn(_stop_when_dying, worker, parts)


def _stop_when_dying(worker: Any, parts: sidecar.Sidecar) -> None:
    """Whatever makes the worker leave, not only a signal: its master's death too."""
    while worker.alive:
        gevent.sleep(_WATCH_SECONDS)
    parts.stop()


def worker_exit(server: Any, worker: Any) -> None:
    """Store the last cursors."""
    del server
    if getattr(worker, "wsgi", None) is not None:
        sidecar.of(worker.wsgi).close()

"""``make run``: migrate, serve, and show what to paste.

Everything here can be done by hand with the commands that it prints or calls; this joins them.
"""

import contextlib
import os
import pathlib
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / ".venv" / "bin"
DATABASE = ROOT / "var" / "events.db"
SECRET = ROOT / "var" / "jwt-secret"

HOST = "127.0.0.1"
USER = "42"  # stands in INSERT too
TOKEN_SECONDS = 86_400
START_SECONDS = 60.0

INSERT = (
    "INSERT INTO file_event_outbox (user_id, type, file_id, from_path) "
    "VALUES ('42', 'create', 'f9', '/docs/plan.md')"
)

# Works wherever Python does: a new machine need not have the sqlite3 program.
EXECUTE = (
    "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute(sys.argv[2]); d.commit()"
)


def main() -> int:
    """Serve until a signal; 0 if gunicorn ended cleanly."""
    port = int(os.environ.get("PORT") or 8000)
    if not _free(port):
        print(f"Port {port} is taken. Another one: PORT={port + 1} make run", file=sys.stderr)
        return 1
    environment = os.environ | _secret()
    _migrate(environment)
    what_now = _what_now(port, environment)
    with _foreground():
        return _serve(port, environment, what_now)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _secret() -> dict[str, str]:
    """Keep one random secret: tokens stay good over a restart. A key of the caller's goes first."""
    if any(name in os.environ for name in KEYS):
        return {}
    if not SECRET.exists():
        SECRET.parent.mkdir(exist_ok=True)
        SECRET.touch(mode=0o600)
        SECRET.write_text(secrets.token_urlsafe(48))
    return {"EVENTS_JWT_SECRET": SECRET.read_text().strip()}


KEYS = ("EVENTS_JWT_SECRET", "EVENTS_JWT_PUBLIC_KEY_FILE", "EVENTS_JWT_JWKS_URL")


def _migrate(environment: Mapping[str, str]) -> None:
    DATABASE.parent.mkdir(exist_ok=True)
    subprocess.run([PROGRAMS / "alembic", "upgrade", "head"], cwd=ROOT, env=environment, check=True)


def _serve(port: int, environment: Mapping[str, str], what_now: str) -> int:
    """Run gunicorn away from the terminal, so that Ctrl-C asks it once and kindly, through us."""
    arguments = ["-c", "gunicorn.conf.py", "--bind", f"{HOST}:{port}", "--workers", "2", "wsgi:app"]
    gunicorn = subprocess.Popen(
        [PROGRAMS / "gunicorn", *arguments], cwd=ROOT, env=environment, start_new_session=True
    )

    def end(_number: int, _frame: types.FrameType | None) -> None:
        gunicorn.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        if _answers(gunicorn, f"http://{HOST}:{port}/healthz"):
            print(what_now, flush=True)
        return gunicorn.wait()
    finally:
        gunicorn.terminate()


def _answers(gunicorn: subprocess.Popen[bytes], address: str) -> bool:
    """Wait until the address answers; false if gunicorn ends first or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while gunicorn.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return True
        if time.monotonic() > deadline:
            print(f"{address} has not answered for {START_SECONDS:.0f} s", file=sys.stderr)
            gunicorn.terminate()
            return False
        time.sleep(0.1)
    return False


def _what_now(port: int, environment: Mapping[str, str]) -> str:
    token = _token(environment)
    stream = [
        *("curl", "-N", "-H", f"Authorization: Bearer {token}"),
        *("-H", f"X-Cr-Client-Id: {uuid.uuid4()}"),
        f"http://{HOST}:{port}/api/v4/file/events?uri=cloudreve://my",
    ]
    append = f"events append --user {USER} create /docs/a.txt --file-id f1"
    return "\n".join(
        [
            "",
            f"events-app runs at http://{HOST}:{port}; Ctrl-C ends it.",
            "",
            f"A token of user {USER}, good for a day:",
            f"  {token}",
            "",
            "1. In another terminal, watch the files of that user:",
            f"  {shlex.join(stream)}",
            "",
            f"   The same in a browser, with that token: http://{HOST}:{port}/console",
            "",
            "2. In a third one, change a file by one INSERT. It shows when all is quiet for 5 s:",
            f"  {_sql_line(environment)}",
            "",
            "   The same by our own command:",
            f"  cd {shlex.quote(str(ROOT))} && .venv/bin/flask --app wsgi {append}",
            "",
        ]
    )


def _sql_line(environment: Mapping[str, str]) -> str:
    """Give the INSERT as a line to paste; for a database of the caller's, as it is."""
    if "EVENTS_DATABASE_URL" in environment:
        return INSERT + ";"
    command = [str(PROGRAMS / "python"), "-c", EXECUTE, str(DATABASE)]
    return f'{shlex.join(command)} "{INSERT}"'


def _token(environment: Mapping[str, str]) -> str:
    if "EVENTS_JWT_SECRET" not in environment:
        return "TOKEN-OF-YOUR-ISSUER"
    arguments = ["--app", "wsgi", "events", "token", "--user", USER, "--ttl", str(TOKEN_SECONDS)]
    made = subprocess.run(
        [PROGRAMS / "flask", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return made.stdout.strip()


@contextlib.contextmanager
def _foreground() -> Iterator[None]:
    """Take the terminal from make, which answers Ctrl-C by an error message and status 130."""
    group = os.getpgrp()
    if not sys.stdin.isatty() or os.tcgetpgrp(0) != group:
        yield
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else moving the terminal back would stop us
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # the shell waits for make: it would not see it
    if group != os.getpid():
        os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    try:
        yield
    finally:
        os.tcsetpgrp(0, group)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shlex.join(map(str, error.cmd))} failed with status {error.returncode}")

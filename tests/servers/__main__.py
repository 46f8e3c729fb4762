"""``python -m tests.servers COMMAND``: see ``--help``."""

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence

from tests.servers import mariadb, postgresql, server, toolchains

SERVERS: tuple[server.Server, ...] = (postgresql.PostgreSQL(), mariadb.MariaDB())
ADDRESSES = server.VAR / "servers.env"

# One process at a time starts and stops; each `run` that uses the servers holds a share of the
# second file; the third says that they were started by hand and outlive every `run`.
BUSY = server.VAR / "servers.busy"
USERS = server.VAR / "servers.users"
KEEP = server.VAR / "servers.keep"

HOW_TO_STOP = "python -m tests.servers stop"


def main() -> int:
    """Do what the command line says; 0 if everything asked for could be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        commands.add_parser(name, help=function.__doc__).set_defaults(function=function)
    run_parser = commands.add_parser("run", help=run.__doc__)
    run_parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.command == "run":
        return run(options.program)
    return int(options.function())


def start() -> int:
    """Start the databases and leave them running."""
    missing = _start()
    KEEP.touch()
    _report(missing)
    print(f"addresses: {ADDRESSES}\nthey run until: {HOW_TO_STOP}")
    return 1 if missing else 0


def stop() -> int:
    """Stop the databases, keep their data."""
    with _lock(BUSY, fcntl.LOCK_EX):
        for engine in SERVERS:
            engine.stop()
        KEEP.unlink(missing_ok=True)
        ADDRESSES.unlink(missing_ok=True)
    return 0


def remove() -> int:
    """Stop the databases and delete their data."""
    stop()
    for engine in SERVERS:
        engine.remove()
    return 0


def status() -> int:
    """Say for each database and toolchain whether it is there."""
    lines = [_server_status(engine) for engine in SERVERS] + toolchains.status()
    for good, line in lines:
        print(f"{'ok     ' if good else 'MISSING'}  {line}")
    if any(engine.running() for engine in SERVERS):
        print(f"stop the databases: {HOW_TO_STOP}")
    return 0 if all(good for good, _ in lines) else 1


def ensure_toolchains() -> int:
    """See that nginx, PHP, Go, Node.js and Chromium are there, as root install them."""
    lines = toolchains.ensure()
    for good, line in lines:
        print(f"{'ok     ' if good else 'MISSING'}  {line}")
    return 0 if all(good for good, _ in lines) else 1


COMMANDS = {
    "start": start,
    "stop": stop,
    "status": status,
    "remove": remove,
    "toolchains": ensure_toolchains,
}


def run(program: Sequence[str]) -> int:
    """Run a program with everything there; the last of such runs stops what was not kept."""
    with _lock(USERS, fcntl.LOCK_SH) as users:
        missing = _start() + [line for good, line in toolchains.ensure() if not good]
        strict = os.environ.get("CI") == "true"
        if missing and strict:
            _report(missing)
            print("CI=true, so nothing is run without them")
            return 1
        try:
            code = _obey(program)
        finally:
            _stop_if_last(users)
        _report(missing)
        return code


def _start() -> list[str]:
    """Start every database, write the addresses; what can't be had."""
    missing, addresses = [], {}
    with _lock(BUSY, fcntl.LOCK_EX):
        for engine in SERVERS:
            if engine.given():
                continue
            try:
                addresses[engine.variable] = engine.start()
            except server.UnavailableError as reason:
                missing.append(str(reason))
        text = "".join(f"{name}={value}\n" for name, value in addresses.items())
        server.write_private(ADDRESSES, text)
    return missing


def _stop_if_last(users: int) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not KEEP.exists():
            stop()


def _obey(program: Sequence[str]) -> int:
    """Run ``program`` with the addresses in its environment; its exit code."""
    lines = ADDRESSES.read_text().splitlines()
    addresses = dict(line.split("=", 1) for line in lines)
    environment = addresses | os.environ | {"PATH": toolchains.path()}
    with subprocess.Popen(program, env=environment) as process:

        def pass_on(number: int, _: types.FrameType | None) -> None:
            # A terminal's Ctrl-C reaches the program by itself: then only wait for its end.
            if number != signal.SIGINT:
                process.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        code = process.wait()
    return code if code >= 0 else 128 - code


def _server_status(engine: server.Server) -> tuple[bool, str]:
    if engine.given():
        return True, f"{engine.title} is yours, by {engine.variable}"
    state = engine.running()
    if state is None:
        return False, f"{engine.title} does not run; start it: python -m tests.servers start"
    return True, f"{engine.title} at {server.HOST}:{state.port}, data in {engine.data}"


def _report(missing: Sequence[str]) -> None:
    if missing:
        lines = "\n".join(f"!! MISSING  {line}" for line in missing)
        print(f"\n{'!' * 78}\n{lines}\n{'!' * 78}", flush=True)


@contextlib.contextmanager
def _lock(path: os.PathLike[str], kind: int) -> Iterator[int]:
    """Hold a lock on a file of ours; it ends with us, however we end."""
    server.VAR.mkdir(exist_ok=True)
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(number, kind)
        yield number
    finally:
        os.close(number)


if __name__ == "__main__":
    sys.exit(main())

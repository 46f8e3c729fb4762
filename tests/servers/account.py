"""Who the servers run as: both engines refuse to run as root."""

import dataclasses
import os
import pathlib
import pwd
import subprocess
from collections.abc import Sequence

# What a server is told of our environment: a path and a language nobody's shell has bent.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin", "LC_ALL": "C.UTF-8"}


@dataclasses.dataclass(frozen=True)
class Account:
    """A user of this machine; ``switch`` says that we are root and have to become it."""

    name: str
    user: int
    group: int
    switch: bool

    def start(
        self, command: Sequence[str], folder: pathlib.Path, log: pathlib.Path
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` in ``folder``, detached from our terminal, writing to ``log``."""
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=ENVIRONMENT | {"HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                user=self.user if self.switch else None,
                group=self.group if self.switch else None,
                extra_groups=[] if self.switch else None,
            )

    def reaches(self, folder: pathlib.Path) -> bool:
        """Whether every folder on the way to ``folder`` lets this account through."""
        process = self.start(
            ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)],
            pathlib.Path("/"),
            pathlib.Path(os.devnull),
        )
        return process.wait() == 0


def ordinary(preferred: Sequence[str]) -> Account:
    """Ourselves; for root the first of ``preferred`` that exists."""
    if os.geteuid() != 0:
        return Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid(), switch=False)
    entry = next(filter(None, map(_entry, preferred)))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None

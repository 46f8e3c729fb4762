"""Install missing Debian packages as root, without letting them start a service."""

import contextlib
import functools
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

POLICY = pathlib.Path("/usr/sbin/policy-rc.d")
CLUSTER_SETTINGS = pathlib.Path("/etc/postgresql-common/createcluster.d/events-app.conf")
APT = ("apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=300")


def can_install() -> bool:
    """Whether this machine takes Debian packages from us."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(*packages: str) -> bool:
    """Install ``packages`` and say whether that worked; the reason is in apt's own output."""
    if not can_install():
        return False
    print(f"installing Debian packages: {' '.join(packages)}", flush=True)
    with _no_services(), _no_cluster():
        return _update() and _apt("install", "--no-install-recommends", *packages)


@functools.cache
def _update() -> bool:
    return _apt("update")


def _apt(*arguments: str) -> bool:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        [*APT, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout, end="", flush=True)
    return done.returncode == 0


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """invoke-rc.d asks this file whether it may start what a package brings: 101 means no."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


@contextlib.contextmanager
def _no_cluster() -> Iterator[None]:
    """Debian's PostgreSQL packages make a cluster when they are installed, unless told not to."""
    made = [folder for folder in CLUSTER_SETTINGS.parents if not folder.exists()]
    CLUSTER_SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    CLUSTER_SETTINGS.write_text("create_main_cluster = false\n")
    try:
        yield
    finally:
        CLUSTER_SETTINGS.unlink(missing_ok=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()

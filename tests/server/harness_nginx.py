"""nginx with the files of docs/how-to/nginx, in front of gunicorn's unix socket."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.databases import ROOT
from tests.serving import (
    CONNECT_SECONDS,
    EVENTS_PATH,
    STOP_SECONDS,
    Server,
    child_pids,
    eventually,
    free_port,
)

SHIPPED = ROOT / "docs/how-to/nginx"
NAME = "files.example.com"

# What may stand in other people's files beside ours: each line breaks a stream that ours does not
# protect from it. nginx obeys our X-Accel-Buffering too; here only its own settings count.
SURROUNDINGS = """
    proxy_buffering on;
    proxy_ignore_headers X-Accel-Buffering Cache-Control;
    proxy_cache_path {folder}/cache keys_zone=everything:1m;
    proxy_cache everything;
    proxy_cache_lock on;
    proxy_cache_valid any 1h;
    gzip on;
    gzip_types *;
    gzip_min_length 0;
    gzip_proxied any;
    proxy_intercept_errors on;
    error_page 400 401 403 429 /sorry.html;
    proxy_read_timeout 500ms;
"""

# Debian's nginx has its own folders for them, which only root may write to.
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """One nginx. `folder` is short and open to others: nginx's workers are not root."""

    def __init__(self, program: str, folder: Path, changes: dict[str, str] | None = None) -> None:
        """Take the shipped files with this machine's places, and `changes` of a test's own."""
        self.folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.upstream = folder / "events-app.sock"
        self.access_log = folder / "events-app.log"
        self.error_log = folder / "events-app.error.log"
        self.start_log = folder / "nginx.log"
        self._program = program
        self._changes = changes or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.trust = self._make_certificate()
        self._write_files()

    def _make_certificate(self) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        now = dt.datetime.now(dt.UTC)
        day = dt.timedelta(days=1)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (self.folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
        plain = serialization.NoEncryption()
        pkcs8 = serialization.PrivateFormat.PKCS8
        (self.folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.load_verify_locations(self.folder / "cert.pem")
        return trust

    def _write_files(self) -> None:
        places = {
            "unix:/run/events-app/events-app.sock": f"unix:{self.upstream}",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            f"/etc/ssl/certs/{NAME}.pem": str(self.folder / "cert.pem"),
            f"/etc/ssl/private/{NAME}.key": str(self.folder / "key.pem"),
            "/var/log/nginx/events-app.log": str(self.access_log),
            "/var/log/nginx/events-app.error.log": str(self.error_log),
        }
        texts = {name: (SHIPPED / name).read_text() for name in ("main.conf", "events-app.conf")}
        for old, new in (places | self._changes).items():
            assert sum(text.count(old) for text in texts.values()) == 1, old
            texts = {name: text.replace(old, new) for name, text in texts.items()}
        temporary = [f"{each}_temp_path {self.folder}/{each};" for each in TEMPORARY]
        texts["nginx.conf"] = "\n".join(
            [
                "worker_processes 2;",
                f"pid {self.folder}/nginx.pid;",
                f"include {self.folder}/main.conf;",
                "http {",
                SURROUNDINGS.format(folder=self.folder),
                f"access_log {self.folder}/everything.log;",
                *temporary,
                f"include {self.folder}/events-app.conf;",
                "}",
            ]
        )
        for name, text in texts.items():
            (self.folder / name).write_text(text)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Run it, and end it however the test ends."""
        command = [self._program, "-e", str(self.start_log), "-c", f"{self.folder}/nginx.conf"]
        process = self._process = subprocess.Popen([*command, "-g", "daemon off;"])
        try:
            eventually(self._listens, what=f"nginx listens; see {self.start_log}")
            yield self
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.start_log.read_text()
        with contextlib.suppress(ConnectionRefusedError):
            self.connect().close()
            return True
        return False

    def connect(self) -> ssl.SSLSocket:
        """Connect as a client does."""
        plain = socket.create_connection(("127.0.0.1", self.port), CONNECT_SECONDS)
        return self.trust.wrap_socket(plain, server_hostname=NAME)

    def reload(self) -> list[int]:
        """Read the files again; return the workers that only end what they have by now."""
        assert self._process is not None
        old = child_pids(self._process.pid)
        self._process.send_signal(signal.SIGHUP)
        eventually(lambda: all(map(_is_leaving, old)), what="new workers of nginx")
        return old


def _is_leaving(worker: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return b"shutting down" in Path(f"/proc/{worker}/cmdline").read_bytes()
    return True


def is_gone(process: int) -> bool:
    """Say whether a process has ended."""
    return not Path(f"/proc/{process}").exists()


class Proxied(Server):
    """gunicorn that clients reach through nginx only; tests also look at it directly."""

    def __init__(
        self, url: str, nginx: Nginx, settings: dict[str, str] | None = None, workers: int = 2
    ) -> None:
        """Serve the database at `url`."""
        super().__init__(url, nginx.folder / "gunicorn.log", settings, workers=workers)
        self.nginx = nginx
        self.binds.append(f"unix:{nginx.upstream}")
        self.events_url = nginx.url + EVENTS_PATH

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Run both. The end is no part of a test: a quick one will do."""
        with self.nginx.running():
            self.start()
            try:
                yield self
            finally:
                self.stop(signal.SIGKILL)

    def connect(self) -> socket.socket:
        """Connect to nginx."""
        return self.nginx.connect()

    def headers(self, user: str = "42", client_id: str | None = None) -> dict[str, str]:
        """Make the headers of a stream's request, from a client that understands gzip."""
        return super().headers(user, client_id) | {"Accept-Encoding": "gzip"}

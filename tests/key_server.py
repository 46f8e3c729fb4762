"""A server of public keys, as an identity provider runs one, and the keys it signs with."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from tests.tokens import claims

PATH = "/keys"
DRIP_SECONDS = 0.2


def new_rsa(bits: int = 2_048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


RSA, OTHER_RSA = new_rsa(), new_rsa()
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def public_pem(*keys: Any) -> bytes:
    """Write the public halves, one block after the other."""
    return b"".join(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for key in keys
    )


def jwk(key: Any, key_id: str | None = None, algorithm: str = "RS256", **more: Any) -> Any:
    """Write the public half as a JWK; a member of None is left out."""
    verifier = jwt.get_algorithm_by_name(algorithm)
    members = json.loads(verifier.to_jwk(key.public_key())) | {"kid": key_id} | more
    return {name: value for name, value in members.items() if value is not None}


def jwks(*keys: Any) -> bytes:
    """Write a set of JWKs."""
    return json.dumps({"keys": keys}).encode()


def signed_by(key: Any, key_id: str | None = None, algorithm: str = "RS256", **changed: Any) -> str:
    """Sign a good token, with a key id in its header if there is one."""
    headers = {} if key_id is None else {"kid": key_id}
    return jwt.encode(claims(**changed), key, algorithm, headers=headers)


class KeyServer:
    """Answers `document`, with `status` and `headers`; counts how often it was asked.

    While `drips` it sends a space now and then and never comes to the end. Before the answer come
    `interim` others.
    """

    def __init__(self, document: bytes = b"", port: int = 0) -> None:
        self.document = document
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self.drips = False
        self.interim = 0
        self.asked: list[dict[str, str]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._http.daemon_threads = True
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        self._leave = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._http.shutdown()
        self._http.server_close()

    def certify(self, folder: Path) -> Path:
        """Speak TLS from now on; return the certificate, which nobody has signed but itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, private = folder / "certificate.pem", folder / "private.pem"
        certificate.write_bytes(_certificate(key))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")
        return certificate

    def offer(self, *keys: Any) -> None:
        """Answer this set of keys from now on."""
        self.document = jwks(*keys)

    def drip(self, write: Any) -> None:
        """Send a byte now and then until the client has gone."""
        while not self._leave.wait(DRIP_SECONDS):
            write(b" ")


def _certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a certificate of this address, good for a day."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keys")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _handler_of(server: KeyServer) -> type[BaseHTTPRequestHandler]:
    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(dict(self.headers))
            try:
                self._answer()
            except OSError:
                self.close_connection = True  # who asked has lost patience

        def _answer(self) -> None:
            for _ in range(server.interim):
                self.wfile.write(b"HTTP/1.0 100 Continue\r\nX: y\r\n\r\n")
            self.send_response(server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if server.drips:
                server.drip(self.wfile.write)
            self.wfile.write(server.document)

        def log_message(self, *_: Any) -> None:
            pass

    return Keys

"""Apps that verify tokens, and the tokens that they are shown."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
from flask import Flask
from sqlalchemy import Connection

from events_app import outbox, settings, sidecar
from events_app.app import create_app

SECRET = "a secret of more than thirty-two bytes"
EVENTS_PATH = "/api/v4/file/events"


def app(url: str = "sqlite:///var/never-opened.db", **variables: str) -> Flask:
    """Make the app on the database at `url`; further settings by their names without EVENTS_."""
    environment = {f"EVENTS_{name}": value for name, value in variables.items()}
    if "JWT_ALGORITHM" not in variables:
        environment["EVENTS_JWT_SECRET"] = SECRET
    made = create_app(settings.load(environment | {"EVENTS_DATABASE_URL": url}))
    made.testing = False
    return made


def write(app: Flask, *paths: str) -> None:
    """Commit a `create` of user 42 for each path, as the app next door does."""

    def append(connection: Connection) -> None:
        for path in paths:
            outbox.append(connection, "42", "create", path, path)

    sidecar.of(app).database.write(append)


def claims(**changed: Any) -> dict[str, Any]:
    """Make the claims of a good token; a claim of None is left out."""
    found = {"sub": "42", "exp": int(time.time()) + 3_600} | changed
    return {name: value for name, value in found.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    """Sign a token."""
    return jwt.encode(claims(**changed), key, algorithm)


def handmade(header: dict[str, Any], payload: str, signature: bytes = b"") -> str:
    """Write a token that no library would."""
    parts = [json.dumps(header).encode(), payload.encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def signed(payload: str) -> str:
    """Sign any text with our secret."""
    return jwt.api_jws.encode(payload.encode(), SECRET, "HS256")


def bearer(text: str) -> dict[str, str]:
    """Write the header."""
    return {"Authorization": f"Bearer {text}"}

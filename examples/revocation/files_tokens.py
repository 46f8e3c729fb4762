"""Tells events-app which tokens the files app has revoked.

The app writes the `jti` of a token into its table `revoked_token` when its user signs out.
events-app asks `refusal` about the token of each request, and again about those of open streams.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Engine, create_engine, text

REVOKED = text("SELECT reason FROM revoked_token WHERE jti = :jti")


@cache
def engine() -> Engine:
    """Connect when first asked: each worker is a process of its own, with its own connections."""
    return create_engine(os.environ["FILES_DATABASE_URL"], pool_pre_ping=True)


def refusal(claims: Mapping[str, Any]) -> str | None:
    """Return why the token with these verified claims is refused, or None if it is good."""
    if (jti := claims.get("jti")) is None:
        return "it has no jti and could not be revoked"
    with engine().connect() as connection:
        reason: str | None = connection.scalar(REVOKED, {"jti": jti})
    return reason

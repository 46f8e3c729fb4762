"""Every failure a caller can meet: its HTTP status, its code, its sentence. Knows no Flask.

::

    EventsError
    ├── SettingsError            the process does not start
    ├── DatabaseError            the database cannot serve us, and what to do about it
    │   ├── SchemaError          tables missing or of another version
    │   └── UnsupportedDatabase  an engine, version or isolation level we refuse
    ├── KeysAway                 nobody can tell whether a token is good
    ├── BrokenJournal            a rule of the journal does not hold: alarm, never carry on
    │   ├── HoleInJournal
    │   └── MoveMismatch
    └── RequestError             answered as JSON, of a stream before it starts
        ├── Unauthorized         401/401
        ├── WrongTokenType       401/40020
        ├── MissingScope         403/40089
        ├── EventsDisabled       403/40019
        ├── BadParameter         400/40001
        ├── ForeignFolder        403/403
        ├── ForeignUser          403/403
        ├── CannotResume         410/410
        ├── TooLarge             413/413
        ├── UnsupportedBody      415/415
        ├── TooManyStreams       429/429
        ├── DatabaseAway         503/503
        └── Unforeseen           500/50005

A class's docstring is its message. The codes are the table *Errors* of the protocol.
"""

from __future__ import annotations

import inspect
from typing import Self


class EventsError(Exception):
    """Something went wrong."""

    def __init__(self, detail: str | None = None) -> None:
        """Say `detail`, or what the class's docstring says."""
        self.message = detail or inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(self.message)


class SettingsError(EventsError):
    """A setting is missing or wrong."""


class DatabaseError(EventsError):
    """The database cannot serve us."""


class SchemaError(DatabaseError):
    """The tables are missing or of another version; run: alembic upgrade head."""


class UnsupportedDatabase(DatabaseError):
    """This database, version or isolation level is not supported."""


class KeysAway(EventsError):
    """The keys that verify tokens cannot be fetched."""


class BrokenJournal(EventsError):
    """A rule of the journal does not hold."""


class HoleInJournal(BrokenJournal):
    """A position is missing from the journal."""


class MoveMismatch(BrokenJournal):
    """The mover inserted or deleted another number of rows than it read."""


class RequestError(EventsError):
    """The request cannot be served."""

    status = 500
    code = 50005
    retry_after_seconds: int | None = None
    data: dict[str, object] | None = None
    """What a program needs to go on, beside the words."""

    def at(self, index: int) -> Self:
        """Say that the change of this index in a body, counted from 0, is the reason."""
        self.data = {"index": index, "reason": self.message}
        self.message = f"change {index}: {self.message}"
        return self


class Unauthorized(RequestError):
    """A valid access token is required."""

    status = 401
    code = 401


class WrongTokenType(RequestError):
    """Only access tokens are accepted here."""

    status = 401
    code = 40020


class MissingScope(RequestError):
    """The token lacks the scope this needs."""

    status = 403
    code = 40089


class EventsDisabled(RequestError):
    """File events are switched off."""

    status = 403
    code = 40019


class BadParameter(RequestError):
    """A parameter is wrong."""

    status = 400
    code = 40001


class ForeignFolder(RequestError):
    """This folder belongs to somebody else."""

    status = 403
    code = 403


class ForeignUser(RequestError):
    """These changes are somebody else's."""

    status = 403
    code = 403


class CannotResume(RequestError):
    """The cursor cannot be honoured; list the folder and go on from the fresh cursor."""

    status = 410
    code = 410


class TooLarge(RequestError):
    """The body is too large."""

    status = 413
    code = 413


class UnsupportedBody(RequestError):
    """The body is of a type that is not taken here."""

    status = 415
    code = 415


class TooManyStreams(RequestError):
    """Too many streams are open for this user."""

    status = 429
    code = 429
    retry_after_seconds = 30


class DatabaseAway(RequestError):
    """The database is away; nothing was read or written."""

    status = 503
    code = 503
    retry_after_seconds = 5


class Unforeseen(RequestError):
    """Something unforeseen happened; the log has the details under this correlation id."""

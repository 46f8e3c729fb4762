"""Every setting once: name, kind, default, sentence. A bad one names itself and its value.

A field of `Settings` is a row of the table: `variable` puts the environment's name and everything
the documents say beside the attribute, so neither can drift from the other. The module reads no
environment by itself: `load` takes a mapping.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from events_app import errors, kinds
from events_app.kinds import Kind

PREFIX = "EVENTS_"
MAKE_A_KEY = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"

# A value is printed to be recognised, not to be read in full.
_LONGEST_SHOWN = 200
# Drivers take passwords as parameters too: ?password= ?passwd= ?sslpassword=.
_SECRET_PARAMETER = re.compile(r"(?i)([?&;][^=&;?]*(?:pass|secret|token)[^=&;?]*=)[^&;]*")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table; `default` is the text one would write, "" for none."""

    name: str
    attribute: str
    kind: Kind
    default: str
    sentence: str

    def parse(self, text: str) -> Any:
        """Return the value of `text`, where "" is unset; raise ValueError with the reason."""
        text = text or self.default
        return self.kind.parse(text) if text else self.kind.empty

    def text_in(self, environ: Mapping[str, str]) -> str:
        """Return what `environ` says, without the spaces around it unless they may be secret."""
        text = environ.get(self.name, "")
        return text if self.kind.holds == "a secret" else text.strip()


def variable(name: str, kind: Kind, default: str, sentence: str) -> Any:
    """Make a field of `Settings` out of a row; what may hold a secret stays out of its repr."""
    return dataclasses.field(
        default=kind.parse(default) if default else kind.empty,
        repr=kind.holds == "nothing secret",
        metadata={"name": name, "kind": kind, "default": default, "sentence": sentence},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, parsed; made by `load`. Units stand in the names."""

    database_url: str = variable(
        "EVENTS_DATABASE_URL",
        kinds.DATABASE_URL,
        "sqlite:///var/events.db",
        "The database shared with the app, as a SQLAlchemy URL.",
    )
    jwt_secret: str | None = variable(
        "EVENTS_JWT_SECRET",
        kinds.SECRET,
        "",
        "The secret that signs HS256 tokens; HS384 needs 48 bytes, HS512 64. `make run` makes a"
        " random one.",
    )
    jwt_public_key_file: str | None = variable(
        "EVENTS_JWT_PUBLIC_KEY_FILE",
        kinds.FILE,
        "",
        "The PEM file of the public key that verifies RS, ES and EdDSA tokens; of several in it,"
        " any one.",
    )
    jwt_jwks_url: str | None = variable(
        "EVENTS_JWT_JWKS_URL",
        kinds.WEB_ADDRESS,
        "",
        "Where the public keys are fetched as a JWKS, instead of the key file.",
    )
    jwt_algorithm: str = variable(
        "EVENTS_JWT_ALGORITHM",
        kinds.ALGORITHM,
        "HS256",
        "The one algorithm that tokens are signed with: HS with the secret, the others with a"
        " public key.",
    )
    jwt_issuer: str | None = variable(
        "EVENTS_JWT_ISSUER", kinds.TEXT, "", "The `iss` claim that tokens must have."
    )
    jwt_audience: str | None = variable(
        "EVENTS_JWT_AUDIENCE", kinds.TEXT, "", "The `aud` claim that tokens must have."
    )
    jwt_identity_claim: str = variable(
        "EVENTS_JWT_IDENTITY_CLAIM",
        kinds.TEXT,
        "sub",
        "The claim that holds the user id: the same text as `user_id` in the tables.",
    )
    jwt_leeway_seconds: float = variable(
        "EVENTS_JWT_LEEWAY",
        kinds.DELAY,
        "60",
        "How far the clock of the tokens' issuer may be off.",
    )
    token_in_query: bool = variable(
        "EVENTS_TOKEN_IN_QUERY",
        kinds.SWITCH,
        "false",
        "Whether `?access_token=` is taken, for browsers' EventSource, which cannot set headers.",
    )
    token_in_cookie: bool = variable(
        "EVENTS_TOKEN_IN_COOKIE",
        kinds.SWITCH,
        "false",
        "Whether a token in a cookie is taken; what writes then needs the token's `csrf` claim in"
        " the header `X-CSRF-TOKEN`.",
    )
    token_cookie: str = variable(
        "EVENTS_TOKEN_COOKIE",
        kinds.COOKIE,
        "access_token_cookie",
        "The name of that cookie.",
    )
    token_recheck_seconds: float = variable(
        "EVENTS_TOKEN_RECHECK",
        kinds.TIMER,
        "60",
        "How often the tokens of open streams are asked about again, where a package is installed"
        " that revokes tokens.",
    )
    enabled: bool = variable(
        "EVENTS_ENABLED",
        kinds.SWITCH,
        "true",
        "Whether streams are served; off answers 403 with code 40019, and the mover runs on.",
    )
    uri_scheme: str = variable(
        "EVENTS_URI_SCHEME",
        kinds.SCHEME,
        "cloudreve",
        "The scheme of the `uri` parameter: `cloudreve://my`.",
    )
    payload: Literal["array", "object"] = variable(
        "EVENTS_PAYLOAD",
        kinds.one_of("array", "object"),
        "array",
        "What an `event` frame holds unless the client asks: an array of changes, or one change.",
    )
    debounce_seconds: float = variable(
        "EVENTS_DEBOUNCE",
        kinds.DELAY,
        "5",
        "The quiet time before a run of changes is sent; 0 sends at once.",
    )
    debounce_max_seconds: float = variable(
        "EVENTS_DEBOUNCE_MAX",
        kinds.DELAY,
        "30",
        "The longest a change may wait; not less than `EVENTS_DEBOUNCE`.",
    )
    keep_alive_seconds: float = variable(
        "EVENTS_KEEP_ALIVE",
        kinds.TIMER,
        "25",
        "The silence after which a `keep-alive` frame is sent.",
    )
    poll_interval_seconds: float = variable(
        "EVENTS_POLL_INTERVAL",
        kinds.TIMER,
        "0.25",
        "How often a worker looks for new rows when nothing wakes it.",
    )
    listen_url: str | None = variable(
        "EVENTS_LISTEN_URL",
        kinds.LISTEN_URL,
        "",
        "A direct PostgreSQL address for LISTEN, where `EVENTS_DATABASE_URL` goes through a"
        " pooler.",
    )
    offline_max_age_seconds: float = variable(
        "EVENTS_OFFLINE_MAX_AGE",
        kinds.AGE,
        "1209600",
        "How long a client id is remembered without a connection (14 days).",
    )
    retention_seconds: float | None = variable(
        "EVENTS_RETENTION",
        kinds.AGE,
        "",
        "The age at which journal rows are pruned; unset keeps them for ever.",
    )
    replay_max_rows: int = variable(
        "EVENTS_REPLAY_MAX",
        kinds.count(0),
        "100000",
        "A client that is more than so many rows behind lists its folder afresh: cheaper than a"
        " replay.",
    )
    confirm_seconds: float = variable(
        "EVENTS_CONFIRM_SECONDS",
        kinds.DELAY,
        "30",
        "A frame counts as delivered when the connection lives and has drained so long after it;"
        " behind a proxy more than the proxy takes to notice a dead peer.",
    )
    send_timeout_seconds: float = variable(
        "EVENTS_SEND_TIMEOUT",
        kinds.TIMER,
        "30",
        "A connection that takes no bytes for so long, or for half of `EVENTS_CONFIRM_SECONDS` if"
        " that is less, is dropped; its cursor is kept.",
    )
    stream_lifetime_seconds: float | None = variable(
        "EVENTS_STREAM_LIFETIME",
        kinds.TIMER,
        "",
        "Streams end by `reconnect-required` after so long, never in their first 10 seconds;"
        " unset lets them live.",
    )
    drain_seconds: float = variable(
        "EVENTS_DRAIN",
        kinds.DELAY,
        "5",
        "The time over which a shutdown spreads the ends of its streams.",
    )
    max_streams: int = variable(
        "EVENTS_MAX_STREAMS",
        kinds.count(1),
        "15000",
        "The most streams open in one worker; the next ones wait for a place, 10 seconds at most.",
    )
    max_streams_per_user: int = variable(
        "EVENTS_MAX_STREAMS_PER_USER",
        kinds.count(1),
        "64",
        "The most streams of one user open in one worker.",
    )
    max_streams_per_subscription: int | None = variable(
        "EVENTS_MAX_STREAMS_PER_SUBSCRIPTION",
        kinds.count(1),
        "",
        "The most streams of one client id on one folder open in one worker; unset, only the cap"
        " of its user counts.",
    )
    max_subscriptions_per_user: int = variable(
        "EVENTS_MAX_SUBSCRIPTIONS_PER_USER",
        kinds.count(1),
        "256",
        "The most durable cursors kept for one user; those never resumed go first, then the"
        " longest unseen.",
    )
    append_max_rows: int = variable(
        "EVENTS_APPEND_MAX_ROWS",
        kinds.count(1, 1_000_000),
        "10000",
        "The most changes in one request that appends.",
    )
    append_max_bytes: int = variable(
        "EVENTS_APPEND_MAX_BYTES",
        kinds.count(1_000),
        "5242880",
        "The longest body of such a request (5 MiB).",
    )
    log_format: Literal["line", "json"] = variable(
        "EVENTS_LOG_FORMAT",
        kinds.one_of("line", "json"),
        "line",
        "How the log is written: a line for people, or a JSON object, an event.",
    )
    cors_origins: tuple[str, ...] = variable(
        "EVENTS_CORS_ORIGINS",
        kinds.ORIGINS,
        "",
        "The web pages that may read streams; unset answers no other origin.",
    )


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(attribute=field.name, **field.metadata) for field in dataclasses.fields(Settings)
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings in `environ`; an empty variable counts as unset.

    Raises `errors.SettingsError` that names every bad variable, its value with secrets left out,
    and what is allowed.
    """
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for setting in SETTINGS:
        try:
            values[setting.attribute] = setting.parse(setting.text_in(environ))
        except ValueError as reason:
            wrong[setting.name] = f"{reason}; allowed: {setting.kind.allowed}"
    settings = Settings(**values)
    for name, other, complaint in _contradictions(settings):
        # A variable that could not be read stands at its default here: nothing to complain about.
        if name not in wrong and other not in wrong:
            wrong[name] = complaint
    lines = [f"{_shown(BY_NAME[name], environ)}: {complaint}" for name, complaint in wrong.items()]
    _refuse(lines + _unknown(environ))
    return settings


def require_keys(settings: Settings) -> None:
    """Raise `errors.SettingsError` unless there is a key to verify tokens with.

    Apart from `load`, because commands that never see a token need no key.
    """
    least = kinds.SECRET_BYTES.get(settings.jwt_algorithm)
    if least is None and not (settings.jwt_public_key_file or settings.jwt_jwks_url):
        names = "EVENTS_JWT_PUBLIC_KEY_FILE or EVENTS_JWT_JWKS_URL"
        _refuse([f"{names} must say how to verify {settings.jwt_algorithm} tokens; both are unset"])
    if least is not None and len((settings.jwt_secret or "").encode()) < least:
        state = "is too short" if settings.jwt_secret else "is unset"
        allowed = f"allowed: at least {least} bytes of UTF-8; make one with: {MAKE_A_KEY}"
        _refuse([f"EVENTS_JWT_SECRET {state}; {allowed}"])


def safe_url(url: str) -> str:
    """Return `url` fit for a log: every password in it is ``***``.

    A password may itself hold ``:``, ``/``, ``?`` or ``@`` that nobody escaped, so what is masked
    reaches from the first colon to the last ``@``: too much rather than too little.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    user, at, host = rest.rpartition("@")
    name, colon, _password = user.partition(":")
    if at and colon:
        rest = f"{name}:***@{host}"
    return f"{scheme}://" + _SECRET_PARAMETER.sub(r"\1***", rest)


def _contradictions(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield what is right by itself but not together: the name, the other's name, the reason."""
    if settings.debounce_max_seconds < settings.debounce_seconds:
        reason = f"below EVENTS_DEBOUNCE; allowed: at least {settings.debounce_seconds:g} seconds"
        yield "EVENTS_DEBOUNCE_MAX", "EVENTS_DEBOUNCE", reason
    if settings.listen_url and not settings.database_url.startswith("postgresql"):
        reason = "only PostgreSQL has LISTEN; allowed: beside a postgresql:// EVENTS_DATABASE_URL"
        yield "EVENTS_LISTEN_URL", "EVENTS_DATABASE_URL", reason
    for name, reason in _contradicting_keys(settings):
        yield name, "EVENTS_JWT_ALGORITHM", reason


def _contradicting_keys(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the keys that do not fit the algorithm, for somebody believes that they protect."""
    useless = f"{settings.jwt_algorithm} has no use for it; allowed: with"
    public_keys = {
        "EVENTS_JWT_PUBLIC_KEY_FILE": settings.jwt_public_key_file,
        "EVENTS_JWT_JWKS_URL": settings.jwt_jwks_url,
    }
    given = [name for name, value in public_keys.items() if value]
    least = kinds.SECRET_BYTES.get(settings.jwt_algorithm)
    if least is not None:
        yield from ((name, f"{useless} RS, ES and EdDSA algorithms") for name in given)
        if settings.jwt_secret and len(settings.jwt_secret.encode()) < least:
            reason = f"too short for {settings.jwt_algorithm}; allowed: at least {least} bytes"
            yield "EVENTS_JWT_SECRET", reason
        return
    if settings.jwt_secret:
        yield "EVENTS_JWT_SECRET", f"{useless} {' '.join(kinds.SECRET_BYTES)}"
    if len(given) > 1:
        yield given[1], f"the keys have two sources; allowed: this or {given[0]}"


def _shown(setting: Setting, environ: Mapping[str, str]) -> str:
    """Return ``NAME=value`` as far as the value may be printed, and where it comes from."""
    text = setting.text_in(environ)
    if setting.kind.holds == "a secret":
        return f"{setting.name} (its value is not shown)"
    source = text or setting.default
    if setting.kind.holds == "passwords":
        source = safe_url(source)
    if len(source) > _LONGEST_SHOWN:
        source = source[:_LONGEST_SHOWN] + "…"
    return f"{setting.name}={source!r}" + ("" if text else " (the default)")


def _unknown(environ: Mapping[str, str]) -> list[str]:
    """Return a line for each name of ours that is none; its value may be a misspelt secret."""
    bare = {name.removeprefix(PREFIX): name for name in BY_NAME}
    lines = []
    for name in sorted(set(environ) - set(BY_NAME)):
        if name.startswith(PREFIX):
            nearest = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.0)[0]
            printable = name.encode("unicode_escape").decode()
            lines.append(f"{printable}: no such setting; the nearest is {bare[nearest]}")
    return lines


def _refuse(lines: list[str]) -> None:
    if lines:
        raise errors.SettingsError("\n".join(["these settings are wrong:", *lines]))

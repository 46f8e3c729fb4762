"""A setting is right, or the start is refused with its name, its value and what is allowed."""

from __future__ import annotations

import dataclasses
import typing

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events_app import errors, settings

SECRET = "an-example-of-a-secret-with-enough-bytes"
PUBLIC_KEY = {"EVENTS_JWT_PUBLIC_KEY_FILE": "/keys/public.pem"}
JWKS = {"EVENTS_JWT_JWKS_URL": "https://id.example/keys"}

# The names and defaults that others rely on.
DEFAULTS = {
    "EVENTS_DATABASE_URL": "sqlite:///var/events.db",
    "EVENTS_JWT_SECRET": None,
    "EVENTS_JWT_PUBLIC_KEY_FILE": None,
    "EVENTS_JWT_JWKS_URL": None,
    "EVENTS_JWT_ALGORITHM": "HS256",
    "EVENTS_JWT_ISSUER": None,
    "EVENTS_JWT_AUDIENCE": None,
    "EVENTS_JWT_IDENTITY_CLAIM": "sub",
    "EVENTS_JWT_LEEWAY": 60.0,
    "EVENTS_TOKEN_IN_QUERY": False,
    "EVENTS_TOKEN_IN_COOKIE": False,
    "EVENTS_TOKEN_COOKIE": "access_token_cookie",
    "EVENTS_TOKEN_RECHECK": 60.0,
    "EVENTS_ENABLED": True,
    "EVENTS_URI_SCHEME": "cloudreve",
    "EVENTS_PAYLOAD": "array",
    "EVENTS_DEBOUNCE": 5.0,
    "EVENTS_DEBOUNCE_MAX": 30.0,
    "EVENTS_KEEP_ALIVE": 25.0,
    "EVENTS_POLL_INTERVAL": 0.25,
    "EVENTS_LISTEN_URL": None,
    "EVENTS_OFFLINE_MAX_AGE": 1_209_600.0,
    "EVENTS_RETENTION": None,
    "EVENTS_REPLAY_MAX": 100_000,
    "EVENTS_CONFIRM_SECONDS": 30.0,
    "EVENTS_SEND_TIMEOUT": 30.0,
    "EVENTS_STREAM_LIFETIME": None,
    "EVENTS_DRAIN": 5.0,
    "EVENTS_MAX_STREAMS": 15_000,
    "EVENTS_MAX_STREAMS_PER_USER": 64,
    "EVENTS_MAX_STREAMS_PER_SUBSCRIPTION": None,
    "EVENTS_MAX_SUBSCRIPTIONS_PER_USER": 256,
    "EVENTS_APPEND_MAX_ROWS": 10_000,
    "EVENTS_APPEND_MAX_BYTES": 5_242_880,
    "EVENTS_LOG_FORMAT": "line",
    "EVENTS_CORS_ORIGINS": (),
}


def refused(environ: dict[str, str]) -> list[str]:
    """Return the lines of the refusal, one for each bad variable."""
    with pytest.raises(errors.SettingsError) as caught:
        settings.load(environ)
    return caught.value.message.splitlines()[1:]


def test_an_empty_environment_is_the_defaults() -> None:
    loaded = settings.load({})
    assert {s.name: getattr(loaded, s.attribute) for s in settings.SETTINGS} == DEFAULTS
    assert loaded == settings.Settings()


def test_an_empty_variable_is_unset() -> None:
    assert settings.load(dict.fromkeys(DEFAULTS, "")) == settings.Settings()
    assert settings.load({"EVENTS_DEBOUNCE": "  "}) == settings.Settings()


def test_every_value_has_the_type_of_its_attribute() -> None:
    hints = typing.get_type_hints(settings.Settings)
    for setting in settings.SETTINGS:
        value = getattr(settings.Settings(), setting.attribute)
        accepted = typing.get_args(hints[setting.attribute]) or (hints[setting.attribute],)
        if typing.get_origin(hints[setting.attribute]) is typing.Literal:
            assert value in accepted
        elif typing.get_origin(hints[setting.attribute]) is tuple:
            assert isinstance(value, tuple)
        else:
            assert type(value) in accepted, setting.name


def test_units_stand_in_the_names_of_attributes() -> None:
    for setting in settings.SETTINGS:
        assert setting.attribute.endswith("_seconds") == (setting.kind.name == "seconds")


def test_every_setting_is_read_from_its_variable() -> None:
    environ = {
        "EVENTS_DATABASE_URL": "postgresql://events@db/events",
        "EVENTS_JWT_PUBLIC_KEY_FILE": "/keys/public.pem",
        "EVENTS_JWT_ALGORITHM": "es256",
        "EVENTS_JWT_ISSUER": "https://id.example",
        "EVENTS_JWT_AUDIENCE": "files",
        "EVENTS_JWT_IDENTITY_CLAIM": "uid",
        "EVENTS_JWT_LEEWAY": "0",
        "EVENTS_TOKEN_IN_QUERY": "yes",
        "EVENTS_ENABLED": "off",
        "EVENTS_URI_SCHEME": "Drive",
        "EVENTS_PAYLOAD": "object",
        "EVENTS_DEBOUNCE": "0",
        "EVENTS_DEBOUNCE_MAX": "0",
        "EVENTS_KEEP_ALIVE": "10",
        "EVENTS_POLL_INTERVAL": " 0.1 ",
        "EVENTS_LISTEN_URL": "postgresql://events@direct/events",
        "EVENTS_OFFLINE_MAX_AGE": "86400",
        "EVENTS_RETENTION": "31536000",
        "EVENTS_REPLAY_MAX": "10",
        "EVENTS_CONFIRM_SECONDS": "60",
        "EVENTS_SEND_TIMEOUT": "20",
        "EVENTS_STREAM_LIFETIME": "3600",
        "EVENTS_DRAIN": "2.5",
        "EVENTS_MAX_STREAMS": "100",
        "EVENTS_MAX_STREAMS_PER_USER": "4",
        "EVENTS_MAX_STREAMS_PER_SUBSCRIPTION": "3",
        "EVENTS_MAX_SUBSCRIPTIONS_PER_USER": "8",
        "EVENTS_APPEND_MAX_ROWS": "50",
        "EVENTS_APPEND_MAX_BYTES": "65536",
        "EVENTS_LOG_FORMAT": "json",
        "EVENTS_CORS_ORIGINS": "https://a.example, https://b.example",
        "PATH": "/bin",
        "events_debounce": "x",
    }
    assert settings.load(environ) == settings.Settings(
        database_url="postgresql+psycopg://events@db/events",
        jwt_public_key_file="/keys/public.pem",
        jwt_algorithm="ES256",
        jwt_issuer="https://id.example",
        jwt_audience="files",
        jwt_identity_claim="uid",
        jwt_leeway_seconds=0,
        token_in_query=True,
        enabled=False,
        uri_scheme="drive",
        payload="object",
        debounce_seconds=0,
        debounce_max_seconds=0,
        keep_alive_seconds=10,
        poll_interval_seconds=0.1,
        listen_url="postgresql+psycopg://events@direct/events",
        offline_max_age_seconds=86_400,
        retention_seconds=31_536_000,
        replay_max_rows=10,
        confirm_seconds=60,
        send_timeout_seconds=20,
        stream_lifetime_seconds=3600,
        drain_seconds=2.5,
        max_streams=100,
        max_streams_per_user=4,
        max_streams_per_subscription=3,
        append_max_rows=50,
        append_max_bytes=65_536,
        log_format="json",
        max_subscriptions_per_user=8,
        cors_origins=("https://a.example", "https://b.example"),
    )
    assert settings.load({"EVENTS_JWT_SECRET": SECRET}).jwt_secret == SECRET
    assert settings.load(JWKS | {"EVENTS_JWT_ALGORITHM": "RS256"}).jwt_jwks_url == JWKS.popitem()[1]


def test_every_bad_variable_is_named_with_its_value_and_what_is_allowed() -> None:
    lines = refused(
        {
            "EVENTS_DEBOUNCE": "soon",
            "EVENTS_RETENTION": "-1",
            "EVENTS_KEEP_ALIVE": "nan",
            "EVENTS_PAYLOAD": "list\n",
            "EVENTS_ENABLED": "perhaps",
            "EVENTS_JWT_ALGORITHM": "none",
        }
    )
    assert [line.partition(":")[0] for line in lines] == [
        "EVENTS_JWT_ALGORITHM='none'",
        "EVENTS_ENABLED='perhaps'",
        "EVENTS_PAYLOAD='list'",
        "EVENTS_DEBOUNCE='soon'",
        "EVENTS_KEEP_ALIVE='nan'",
        "EVENTS_RETENTION='-1'",
    ]
    for line in lines:
        setting = settings.BY_NAME[line.partition("=")[0]]
        assert line.endswith(f"; allowed: {setting.kind.allowed}")


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("EVENTS_DEBOUNCE_SECONDS", "EVENTS_DEBOUNCE"),
        ("EVENTS_JWT_SECRT", "EVENTS_JWT_SECRET"),
        ("EVENTS_MAX_STREAM", "EVENTS_MAX_STREAMS"),
        ("EVENTS_DB_URL", "EVENTS_DATABASE_URL"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(unknown: str, nearest: str) -> None:
    (line,) = refused({unknown: SECRET})
    assert line == f"{unknown}: no such setting; the nearest is {nearest}"


@pytest.mark.parametrize("unknown", ["EVENTS_", "EVENTS_\udcff", "EVENTS_\x1b[2J"])
def test_even_the_strangest_unknown_variable_is_told_of(unknown: str) -> None:
    (line,) = refused({unknown: ""})
    assert line.startswith("EVENTS_")
    assert line.isprintable()


def test_a_long_value_is_cut() -> None:
    (line,) = refused({"EVENTS_DEBOUNCE": "9" * 5000})
    assert len(line) < 400


def test_the_longest_wait_is_at_least_the_quiet_time() -> None:
    (line,) = refused({"EVENTS_DEBOUNCE": "60"})
    name, _, reason = line.partition(": ")
    assert name == "EVENTS_DEBOUNCE_MAX='30' (the default)"
    assert reason == "below EVENTS_DEBOUNCE; allowed: at least 60 seconds"
    assert settings.load({"EVENTS_DEBOUNCE": "60", "EVENTS_DEBOUNCE_MAX": "60"})


def test_nothing_is_said_against_the_partner_of_a_bad_variable() -> None:
    (line,) = refused({"EVENTS_DEBOUNCE": "60", "EVENTS_DEBOUNCE_MAX": "long"})
    assert line.startswith("EVENTS_DEBOUNCE_MAX='long'")
    (line,) = refused(PUBLIC_KEY | {"EVENTS_JWT_ALGORITHM": "RSA"})
    assert line.startswith("EVENTS_JWT_ALGORITHM='RSA'")


@pytest.mark.parametrize("database", ["sqlite:///var/events.db", "mysql://db/events", ""])
def test_only_postgresql_has_an_address_for_listen(database: str) -> None:
    (line,) = refused({"EVENTS_LISTEN_URL": "postgresql://db/e", "EVENTS_DATABASE_URL": database})
    assert line.startswith("EVENTS_LISTEN_URL='postgresql://db/e': only PostgreSQL has LISTEN")


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        (PUBLIC_KEY, "EVENTS_JWT_PUBLIC_KEY_FILE"),
        ({"EVENTS_JWT_ALGORITHM": "HS512"} | JWKS, "EVENTS_JWT_JWKS_URL"),
        ({"EVENTS_JWT_ALGORITHM": "EdDSA"} | PUBLIC_KEY | JWKS, "EVENTS_JWT_JWKS_URL"),
        ({"EVENTS_JWT_ALGORITHM": "RS256", "EVENTS_JWT_SECRET": SECRET}, "EVENTS_JWT_SECRET"),
        ({"EVENTS_JWT_ALGORITHM": "HS384", "EVENTS_JWT_SECRET": SECRET}, "EVENTS_JWT_SECRET"),
        ({"EVENTS_JWT_ALGORITHM": "HS512", "EVENTS_JWT_SECRET": "x" * 63}, "EVENTS_JWT_SECRET"),
        ({"EVENTS_JWT_SECRET": "x" * 31}, "EVENTS_JWT_SECRET"),
    ],
)
def test_a_key_that_does_not_fit_the_algorithm_is_refused(
    environ: dict[str, str], name: str
) -> None:
    (line,) = refused(environ)
    assert line.startswith(name)
    assert "; allowed: " in line


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"EVENTS_JWT_ALGORITHM": "RS256"},
        {"EVENTS_JWT_ALGORITHM": "EdDSA"},
        {"EVENTS_JWT_ALGORITHM": "HS512"},
    ],
)
def test_without_a_key_the_settings_load_but_no_token_can_be_verified(
    environ: dict[str, str],
) -> None:
    loaded = settings.load(environ)
    with pytest.raises(errors.SettingsError, match="EVENTS_JWT_"):
        settings.require_keys(loaded)


@pytest.mark.parametrize(
    "environ",
    [
        {"EVENTS_JWT_SECRET": "x" * 32},
        {"EVENTS_JWT_SECRET": "x" * 64, "EVENTS_JWT_ALGORITHM": "HS512"},
        {"EVENTS_JWT_ALGORITHM": "RS256"} | PUBLIC_KEY,
        {"EVENTS_JWT_ALGORITHM": "ES512"} | JWKS,
    ],
)
def test_one_fitting_key_is_enough(environ: dict[str, str]) -> None:
    settings.require_keys(settings.load(environ))


def test_a_short_secret_verifies_nothing_and_one_is_told_how_to_make_another() -> None:
    short = dataclasses.replace(settings.Settings(), jwt_secret="x" * 31)
    with pytest.raises(errors.SettingsError, match="too short") as caught:
        settings.require_keys(short)
    assert caught.value.message.endswith(settings.MAKE_A_KEY)
    assert "xxx" not in caught.value.message


@pytest.mark.parametrize(
    "environ",
    [
        {"EVENTS_JWT_SECRET": "hunter2"},
        {"EVENTS_JWT_SECRET": "hunter2" * 6, "EVENTS_JWT_ALGORITHM": "RS256"},
        {"EVENTS_JWT_SECRE": "hunter2"},
        {"EVENTS_DATABASE_URL": "postgresql+psycopg2://app:hunter2@db/events"},
        {"EVENTS_DATABASE_URL": "oracle://app:p/w:@hunter2@db/events"},
        {"EVENTS_DATABASE_URL": "oracle://db/events?user=app&password=hunter2"},
        {"EVENTS_DATABASE_URL": "host=db password=hunter2"},
        {"EVENTS_DATABASE_URL": "mysql:app:hunter2@db/events"},
        {"EVENTS_LISTEN_URL": "postgresql://app:hunter2@db/events"},
        {"EVENTS_JWT_JWKS_URL": "https://app:hunter2@id.example/keys"},
        {"EVENTS_CORS_ORIGINS": "https://a.example,https://app:hunter2@b.example"},
    ],
)
def test_no_secret_is_printed(environ: dict[str, str]) -> None:
    (line,) = refused(environ)
    assert "hunter2" not in line
    assert line.startswith(next(iter(environ)))


def test_the_settings_can_be_printed_without_a_secret() -> None:
    loaded = settings.load(
        {
            "EVENTS_JWT_SECRET": "hunter2" * 6,
            "EVENTS_DATABASE_URL": "postgresql://app:hunter2@db/events",
            "EVENTS_LISTEN_URL": "postgresql://app:hunter2@db/events",
        }
    )
    assert "hunter2" not in repr(loaded)
    assert "debounce_seconds=5.0" in repr(loaded)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("sqlite:///var/events.db", "sqlite:///var/events.db"),
        ("postgresql://db:5432/events", "postgresql://db:5432/events"),
        ("postgresql://app@db/events", "postgresql://app@db/events"),
        ("postgresql://app:pw@db:5432/events?a=b", "postgresql://app:***@db:5432/events?a=b"),
        ("postgresql://:pw@db/events", "postgresql://:***@db/events"),
        ("mysql://app:p@s:s/w?rd@db/events", "mysql://app:***@db/events"),
        ("mysql://db/e?ssl_key_password=pw&a=b", "mysql://db/e?ssl_key_password=***&a=b"),
        ("mysql://db/e?a=b&PASSWD=p=w", "mysql://db/e?a=b&PASSWD=***"),
        ("https://id.example/keys?access_token=pw", "https://id.example/keys?access_token=***"),
        ("app:pw@db", "***"),
        ("", "***"),
    ],
)
def test_a_safe_url_has_its_passwords_masked(url: str, safe: str) -> None:
    assert settings.safe_url(url) == safe


@hypothesis.settings(deadline=None)
@given(st.text(), st.text())
def test_no_password_survives_whatever_stands_in_it(before: str, after: str) -> None:
    assert "hunter2" not in settings.safe_url(f"postgresql://app:{before}hunter2{after}@db/e")


@hypothesis.settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), st.text(max_size=20)))
def test_any_environment_is_loaded_or_refused_in_one_line_for_each_variable(
    environ: dict[str, str],
) -> None:
    try:
        settings.load(environ)
    except errors.SettingsError as error:
        _, *lines = error.message.split("\n")
        assert all(line.startswith("EVENTS_") and "; allowed: " in line for line in lines)

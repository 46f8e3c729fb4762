"""What an error of a database means, asked of real ones and of their words."""

from __future__ import annotations

import psycopg
import pymysql
import pytest
import sqlalchemy
from sqlalchemy import exc, make_url

from events_app import failures
from tests.serving import free_port


def connect_error(url: sqlalchemy.URL) -> exc.SQLAlchemyError:
    """Connect in vain; the error."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with pytest.raises(exc.SQLAlchemyError) as caught:
        engine.connect()
    return caught.value


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_a_wrong_password_or_user_is_a_refusal(url: str) -> None:
    for wrong in (make_url(url).set(password="wrong"), make_url(url).set(username="nobody")):
        error = connect_error(wrong)
        assert failures.is_denied(error)
        assert not failures.is_away(error)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_a_closed_port_and_a_database_yet_to_be_made_are_away(url: str) -> None:
    for wrong in (make_url(url).set(port=free_port()), make_url(url).set(database="yet_to_be")):
        error = connect_error(wrong)
        assert not failures.is_denied(error)
        assert failures.is_away(error)


def of_postgresql(words: str) -> exc.OperationalError:
    original = psycopg.OperationalError(f'connection to server at "db" failed: {words}')
    return exc.OperationalError("", {}, original)


@pytest.mark.parametrize(
    "words",
    [
        'FATAL:  no pg_hba.conf entry for host "::1", user "events", database "files"',
        'FATAL:  role "events" is not permitted to log in',
        'FATAL:  role "events" does not exist',
        "fe_sendauth: no password supplied",
        'FATAL:  permission denied for database "files"',
    ],
)
def test_other_refusals_of_a_login(words: str) -> None:
    assert failures.is_denied(of_postgresql(words))


@pytest.mark.parametrize(
    "words",
    [
        "FATAL:  the database system is starting up",
        "FATAL:  sorry, too many clients already",
        "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        'FATAL:  LDAP authentication failed for user "events"',
        "server closed the connection unexpectedly",
    ],
)
def test_a_server_that_is_busy_or_lacks_another_one_is_away(words: str) -> None:
    assert failures.is_away(of_postgresql(words))


@pytest.mark.parametrize("number", [1044, 1045, 1130, 1698])
def test_refusals_of_mysql_go_by_their_number(number: int) -> None:
    error = exc.OperationalError("", {}, pymysql.OperationalError(number, "Access denied"))
    assert failures.is_denied(error)
    assert not failures.is_away(error)

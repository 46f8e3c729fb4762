"""What goes wrong in a command, as one line for a person and exit code 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import click
from sqlalchemy.exc import SQLAlchemyError

from events_app import errors, failures, intake

P = ParamSpec("P")
T = TypeVar("T")


def plainly(command: Callable[P, T]) -> Callable[P, T]:
    """Turn our errors and the database's into one line and exit code 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except errors.EventsError as error:
            raise click.ClickException(error.message) from error
        except SQLAlchemyError as error:
            reason = failures.words_of(error)
            raise click.ClickException(f"the database says: {reason}") from error
        except intake.Unacceptable as error:
            raise click.ClickException(str(error)) from error
        except UnicodeError as error:
            raise click.ClickException("an argument is not valid UTF-8") from error

    return run

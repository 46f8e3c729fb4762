"""The settings as a page for people and as an example of an environment file.

``python -m events_app.reference`` prints docs/reference/settings.md, with the argument ``env``
.env.example, and with ``http`` docs/reference/http.md.
"""

from __future__ import annotations

import sys
import textwrap

from events_app import settings, tour

_PAGE = """\
# Settings

The environment is the only source, and it is read once, at the start. An empty variable counts as
unset. Times are seconds; fractions are allowed. A value that is not allowed stops the start, and so
does a variable that begins with `{prefix}` and is not in this table: a misspelt setting would
otherwise be silently without effect. (Kubernetes sets such variables by itself in the pods beside a
Service named `events`: name it otherwise, or say `enableServiceLinks: false`.)

Drivers are left out of the database URL or are `psycopg` for PostgreSQL and `pymysql` for MariaDB
and MySQL. `psycopg2`, `mysqldb` (mysqlclient) and `aiosqlite` are refused: the first two block the
worker's event loop, and with it every stream; the last needs asyncio. In a URL, write `@ : / ? # %`
of a password as `%40 %3A %2F %3F %23 %25`.

Tokens are verified with exactly one algorithm and one source of keys: `EVENTS_JWT_SECRET` for HS256
(HS384, HS512), or else one of `EVENTS_JWT_PUBLIC_KEY_FILE` and `EVENTS_JWT_JWKS_URL`. Without any,
the server does not start. Which one to take, and how keys are changed, says
[tokens](../how-to/tokens.md). Make a secret with:

```
{make_a_key}
```

This page is printed by `python -m events_app.reference`, and [.env.example](../../.env.example) by
`python -m events_app.reference env`.

"""

_ENVIRONMENT = """\
# Every setting with its default; remove the # in front of a name to set it.
# Make a secret with:
#   {make_a_key}

"""


def page() -> str:
    """Return the reference page of the settings, in Markdown."""
    rows = (
        (f"`{s.name}`", s.kind.name, _code(s.default), s.kind.allowed, s.sentence)
        for s in settings.SETTINGS
    )
    return _filled(_PAGE) + tour.table(("name", "kind", "default", "allowed", "meaning"), rows)


def environment() -> str:
    """Return an environment file that sets nothing and shows every setting with its default."""
    blocks = (
        f"{_comment(f'{s.sentence} Allowed: {s.kind.allowed}.')}\n#{s.name}={s.default}\n"
        for s in settings.SETTINGS
    )
    return _filled(_ENVIRONMENT) + "\n".join(blocks)


def _filled(introduction: str) -> str:
    return introduction.format(prefix=settings.PREFIX, make_a_key=settings.MAKE_A_KEY)


def _code(text: str) -> str:
    return f"`{text}`" if text else "none"


def _comment(text: str) -> str:
    return textwrap.fill(
        text,
        width=100,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


PAGES = {"settings": page, "env": environment, "http": tour.page}

if __name__ == "__main__":
    sys.stdout.write(PAGES[(sys.argv[1:] or ["settings"])[0]]())

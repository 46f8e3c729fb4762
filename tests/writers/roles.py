"""A database with the roles of docs/how-to/grants.md, made by the SQL that the page shows."""

import contextlib
import dataclasses
import re
import secrets
from collections.abc import Iterator, Mapping

import sqlalchemy
from sqlalchemy import URL, Engine, make_url

from tests import databases

SQL = databases.ROOT / "examples" / "sql"

# Role and part of its example password.
ROLES = {
    "files_app": "app",
    "events_sidecar": "sidecar",
    "events_migration": "migration",
    "events_auditor": "auditor",
}


@dataclasses.dataclass(frozen=True)
class Roles:
    """The addresses of one migrated database, one for each role."""

    admin: URL
    app: URL
    sidecar: URL
    migration: URL
    auditor: URL

    def engine(self, role: str) -> Engine:
        """Make an engine that connects as `role`: a field of this class."""
        url: URL = getattr(self, role)
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def address(self, role: str) -> str:
        """Write the URL of a role, with its password."""
        url: URL = getattr(self, role)
        return url.render_as_string(hide_password=False)


@contextlib.contextmanager
def prepared(server: str) -> Iterator[Roles]:
    """Make a database with its roles on `server` (an administrator's URL), migrate, clean up."""
    tag = secrets.token_hex(4)
    names = {"files": f"files_{tag}"} | {role: f"{role}_{tag}" for role in ROLES}
    administrator = make_url(server)
    with _autocommit(administrator) as engine:
        _execute(engine, f"CREATE DATABASE {names['files']}")
        try:
            roles = _roles(administrator.set(database=names["files"]), names)
            _fill(roles, names)
            yield roles
        finally:
            _remove(engine, names)


def _roles(admin: URL, names: Mapping[str, str]) -> Roles:
    def login(role: str) -> URL:
        return admin.set(username=names[role], password=f"change-me-{ROLES[role]}")

    return Roles(admin, *map(login, ROLES))


def _fill(roles: Roles, names: Mapping[str, str]) -> None:
    family = _family(roles.admin)
    with _autocommit(roles.admin) as engine:
        run_file(engine, f"roles-{family}.sql", names)
        run_file(engine, f"files-{family}.sql", names)
        databases.alembic(roles.address("migration"), "upgrade", "head")
        run_file(engine, f"grants-{family}.sql", names)


def _remove(engine: Engine, names: Mapping[str, str]) -> None:
    if engine.dialect.name == "postgresql":
        _execute(engine, f"DROP DATABASE {names['files']} WITH (FORCE)")
        for role in ROLES:
            _execute(engine, f"DROP ROLE IF EXISTS {names[role]}")
        return
    _execute(engine, f"DROP DATABASE {names['files']}")
    for role in ROLES:
        _execute(engine, f"DROP USER IF EXISTS '{names[role]}'@'%'")


def _family(url: URL) -> str:
    return "postgresql" if url.get_backend_name() == "postgresql" else "mariadb"


def run_file(engine: Engine, name: str, names: Mapping[str, str]) -> None:
    """Run a file of examples/sql with our own names for its database and roles."""
    text = (SQL / name).read_text()
    for role in ROLES:
        text = re.sub(rf"\b{role}\b", names[role], text)
    text = re.sub(r"\bfiles\.", f"{names['files']}.", text)
    for statement in statements(text):
        _execute(engine, statement)


def statements(text: str) -> list[str]:
    """Split SQL whose texts hold neither `;` nor `--`."""
    without_comments = re.sub(r"--[^\n]*", "", text)
    return [part.strip() for part in without_comments.split(";") if part.strip()]


def _execute(engine: Engine, statement: str) -> None:
    """Run a statement as it stands: SQLAlchemy and drivers give `%` and `:` a meaning."""
    with contextlib.closing(engine.raw_connection()) as connection:
        connection.cursor().execute(statement)


@contextlib.contextmanager
def _autocommit(url: URL) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(
        url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )
    yield engine
    engine.dispose()

"""Imports point one way: each ring knows itself and the rings inside it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import events_app

RINGS = (
    {"errors", "clock", "kinds", "settings", "uri", "event", "intake", "scope"}
    | {"merge", "tree", "forest", "telling", "rings", "retelling"}
    | {"sse", "window", "chronicle", "tally", "listing", "ending", "logs", "moment", "pieces"}
    | {"__init__"},
    {
        "columns",
        "schema",
        "database",
        "failures",
        "fitness",
        "sequencer",
        "outbox",
        "journal",
        "history",
        "expiry",
        "sharing",
        "resumption",
        "subscriptions",
        "standings",
    },
    {
        "peers",
        "listener",
        "tailer",
        "probe",
        "follower",
        "footing",
        "surroundings",
        "beginning",
        "audience",
        "herald",
        "line",
        "delivery",
        "arrivals",
        "garbage",
        "passes",
        "stream",
        "poll",
        "writing",
        "admission",
        "upkeep",
        "withdrawal",
        "revocation",
    },
    {
        "sidecar",
        "jwks",
        "jwk",
        "keys",
        "auth",
        "parameter",
        "asking",
        "shapes",
        "answers",
        "api",
        "recall",
        "submission",
        "append",
        "console",
        "doors",
        "openapi",
        "tour",
        "reference",
        "status",
        "metrics",
        "doctor",
        "terminal",
        "cli",
        "complaint",
        "records",
        "app",
        "trial",
        "start",
        "worker",
    },
)
# What a ring may use besides the standard library; the outermost one may use anything. SQLite's
# native thread is the only thing of gevent that the statements' ring knows.
FOREIGN: tuple[set[str], ...] = (
    set(),
    {"sqlalchemy", "gevent.threadpool", "psycopg"},
    {"sqlalchemy", "gevent", "psycopg"},
)
FILES = {path.stem: path for path in Path(events_app.__file__).parent.glob("*.py")}


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, `from events_app import x` as events_app.x."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "events_app":
            yield from (f"events_app.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def allowed(imported: str, ring: int) -> bool:
    package, _, rest = imported.partition(".")
    if package == "events_app":
        return any(rest.split(".")[0] in names for names in RINGS[: ring + 1])
    at_liberty = ring >= len(FOREIGN) or package in FOREIGN[ring] or imported in FOREIGN[ring]
    return package in sys.stdlib_module_names or at_liberty


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_module_imports_its_own_ring_and_the_rings_inside_it(name: str) -> None:
    rings = [number for number, names in enumerate(RINGS) if name in names]
    assert len(rings) == 1, f"say in RINGS which ring {name} belongs to"
    ring = rings[0]
    assert [i for i in imports_of(FILES[name]) if not allowed(i, ring)] == []


@pytest.mark.parametrize(
    ("imported", "ring"),
    [
        *[("sqlalchemy", 0), ("gevent", 0), ("events_app.journal", 0), (".errors", 0)],
        *[("gevent.hub", 1), ("flask", 1), ("events_app.stream", 1)],
        *[("flask", 2), ("events_app.api", 2), ("events_app.no_such_module", 3)],
    ],
)
def test_an_import_that_points_outwards_is_refused(imported: str, ring: int) -> None:
    assert not allowed(imported, ring)

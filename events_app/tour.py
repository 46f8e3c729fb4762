"""The doors as a page for people: docs/reference/http.md, as the settings are by default."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from events_app import api, append, doors, history, openapi, settings
from events_app.doors import Answer, Door
from events_app.parameter import Parameter

Schema = dict[str, Any]

_HEAD = f"""\
# HTTP

Every door, what it takes and what it answers. `GET {doors.DOCUMENT_PATH}` tells the same to
programs, as OpenAPI 3.1. Both come from the code; this page is printed by
`python -m events_app.reference http`.

Where a token is needed, it is the one of the [protocol](protocol.md#tokens). What belongs to users
is answered as `{{"code": 0, "msg": "", "data": …}}`. An empty parameter counts as none, and one
that is given twice is an error.

"""
_ERRORS = """\
## Errors

```json
{
  "code": 40001,
  "msg": "limit: it is a whole number from 1 to 1000",
  "correlation_id": "5f0c8f1e-3f0f-4b39-9d5c-0b7a3e1c2d4f"
}
```

Who asks is checked first, in the order of the tables, then what is asked for. `code` tells apart
what has the same status, `msg` says it to people, and `data` is there where the tables have it.
Quote `correlation_id` to the people who run the server: their log has the details under it. 429 and
503 say by `Retry-After` after how many seconds to come back. What a client does on each of them:
[protocol](protocol.md#errors).

Other answers, such as 404 and 405, have the same form, with the status as `code`.
"""

_NAMES = {"string": "text", "integer": "whole number", "number": "number", "null": "null"}


def page() -> str:
    """Return the page, in Markdown."""
    schemas = openapi.schemas()
    table_of_doors = doors.table(settings.Settings())
    contents = (
        (f"`{door.method} {door.path}`", f"[{door.heading}](#{_anchor(door.heading)})")
        for door in table_of_doors
    )
    parts = [_HEAD + table(("door", ""), contents)]
    parts += ["\n".join(_door(door, schemas)) for door in table_of_doors]
    return "\n".join([*parts, _ERRORS])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; a bar in a cell would end it."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        f"| {' | '.join(each.replace('|', '&#124;') for each in line)} |\n" for line in lines
    )


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _door(door: Door, schemas: dict[str, Schema]) -> Iterator[str]:
    yield f"## {door.heading}\n"
    yield f"`{door.method} {door.path}`\n"
    yield f"{door.text}\n"
    if door.command:
        yield f"```sh\n{door.command}\n```\n"
    if door.refusals:
        yield table(("parameter", "default", "allowed", "meaning"), _parameters(door))
    if door.bodies:
        yield "### A change\n"
        yield _keys("key", schemas["Item"], with_default=True)
    for answer in door.answers:
        yield from _answer(answer, schemas)
    if door.notes:
        yield f"{door.notes}\n"
    if door.refusals:
        yield "Errors:\n"
        yield table(
            ("what", "status", "code", "`data`"),
            (
                (each.when, str(each.status), str(each.code), _data(each.data, schemas))
                for each in door.refusals
            ),
        )


def _parameters(door: Door) -> Iterator[tuple[str, str, str, str]]:
    yield (
        "`Authorization: Bearer TOKEN` (header)",
        "required",
        "",
        "see [Tokens](protocol.md#tokens)",
    )
    if door.bodies:
        yield "`Content-Type` (header)", "required", _code(*append.FORMS), "what the body is"
    for one in door.parameters:
        default = "none" if one.default is None else _code(one.default)
        yield _name(one, door), default, _allowed(one.schema), one.meaning


def _name(one: Parameter[Any], door: Door) -> str:
    if one.header is None:
        return f"`{one.name}`"
    return f"`{one.header}` (header)" + ("" if door.headers_only else f", or `{one.name}`")


def _allowed(schema: Any) -> str:
    if "enum" in schema:
        return _code(*schema["enum"])
    if "minimum" in schema:
        unbounded = schema["maximum"] == history.END
        most = " on" if unbounded else f" to {schema['maximum']:,}"
        return f"from {schema['minimum']}{most}"
    return f"at most {schema['maxLength']:,} characters" if "maxLength" in schema else ""


def _answer(answer: Answer, schemas: dict[str, Schema]) -> Iterator[str]:
    yield f"**{answer.status}**: {answer.meaning}\n"
    if answer.shape is None:
        if answer.media == api.STREAM_MEDIA:
            yield table(("frame", "what it says"), ((f"`{n}`", text) for n, text in doors.FRAMES))
        return
    schema = schemas[answer.shape.__name__]
    yield _keys("key" if answer.bare else "`data`", schema)
    for name, inner in schema["properties"].items():
        if inner.get("type") == "array":
            yield f"Each of `{name}`:\n"
            yield _keys("key", schemas[_referred(inner["items"])])
    if answer.example is not None:
        example = {"code": 0, "msg": "", "data": msgspec.to_builtins(answer.example)}
        yield f"```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```\n"


def _keys(head: str, schema: Schema, *, with_default: bool = False) -> str:
    rows = (
        (
            f"`{name}`",
            _type(inner),
            *([_needed(name, schema)] if with_default else []),
            inner.get("description", ""),
        )
        for name, inner in schema["properties"].items()
    )
    return table((head, "type", *(["default"] if with_default else []), "meaning"), rows)


def _needed(name: str, schema: Schema) -> str:
    if name in schema["required"]:
        return "required"
    default = schema["properties"][name].get("default")
    return "none" if default is None else _code(json.dumps(default).strip('"'))


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return _referred(schema)
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return _code(*schema["enum"])
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return "list"
    if kind == "boolean":
        return "true or false"
    return f"{_NAMES.get(kind, kind)}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    if "maxLength" in schema:
        least = f"{schema['minLength']} to " if "minLength" in schema else "at most "
        return f", {least}{schema['maxLength']:,}"
    if "maximum" in schema:
        return f", {schema['minimum']} to {schema['maximum']}"
    return ""


def _referred(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _data(shape: type[msgspec.Struct] | None, schemas: dict[str, Schema]) -> str:
    return "" if shape is None else _code(*schemas[shape.__name__]["properties"])


def _code(*words: object) -> str:
    return ", ".join(f"`{word}`" for word in words)

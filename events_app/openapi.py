"""The OpenAPI document of the doors, as this deployment has them; and the door to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import metadata
from itertools import groupby
from typing import Any

import msgspec
from flask import Blueprint, Flask, Response, current_app, request

from events_app import api, auth, doors, errors, shapes, sidecar, sse, submission
from events_app.doors import Answer, Door, Refusal
from events_app.parameter import Parameter
from events_app.settings import Settings

Document = dict[str, Any]

# 3.2 can say that an item of a stream has a schema; few programs read it yet.
VERSION = "3.1.1"
_ABOUT = """\
Tells sync clients what changed in their folders, and takes changes from apps that cannot reach the
database. Every error is a `Problem`, also those that are not listed, such as 404 and 405, whose
`code` is the status."""

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_COMPONENTS = "#/components/schemas/"
_SHAPES = (
    *(shapes.Change, shapes.Page, shapes.Past, shapes.Accepted),
    *(shapes.FreshStart, shapes.WrongChange, shapes.Problem, shapes.Well, shapes.NotReady),
    submission.Item,
)

page = Blueprint("openapi", __name__)


@page.get(doors.DOCUMENT_PATH)
def tell() -> Response:
    """Answer the document, or that it is still the one that the client has."""
    answer = Response(_text(sidecar.of(current_app).settings), mimetype=doors.JSON)
    answer.headers["Cache-Control"] = "no-cache"
    answer.add_etag()
    answer.make_conditional(request)
    return answer


@lru_cache(maxsize=1)
def _text(settings: Settings) -> bytes:
    return msgspec.json.encode(document(settings))


def install(app: Flask) -> None:
    """Add the door."""
    app.register_blueprint(page)


def document(settings: Settings) -> Document:
    """Make the document of a deployment with these settings."""
    paths: dict[str, Document] = {}
    for door in doors.table(settings):
        paths.setdefault(door.path, {})[door.method.lower()] = _operation(door, settings)
    return {
        "openapi": VERSION,
        "info": {
            "title": "events-app",
            "version": metadata.version("events-app"),
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas(), "securitySchemes": _security_schemes(settings)},
    }


def _operation(door: Door, settings: Settings) -> Document:
    told: Document = {
        "operationId": door.name,
        "summary": door.heading,
        "description": _plain(f"{door.text}\n\n{door.notes}".strip()),
        "parameters": [each for one in door.parameters for each in _parameter(one, door)],
        "responses": _responses(door),
        "security": _security(door, settings) if door.refusals else [],
    }
    if door.bodies:
        told["requestBody"] = _body(door, settings)
    return told


def _plain(text: str) -> str:
    """Leave the words of links: the pages that they lead to are not where the document is."""
    return _LINK.sub(r"\1", text)


# -- what a door takes ---------------------------------------------------------------------------


def _parameter(one: Parameter[Any], door: Door) -> Iterator[Document]:
    told: Document = {"description": _plain(one.meaning), "schema": dict(one.schema)}
    if one.default is not None:
        told["schema"] |= {"default": one.default}
    if one.example is not None:
        told["example"] = one.example
    if one.header is not None:
        yield {"name": one.header, "in": "header", **told, "schema": _or_empty(told["schema"])}
        if door.headers_only:
            return
        told["description"] = f"The same as `{one.header}`, which wins."
    yield {"name": one.name, "in": "query", "allowEmptyValue": True, **told}


def _or_empty(schema: Document) -> Document:
    """Say of a header what `allowEmptyValue` says of a query."""
    return schema | {"pattern": f"^$|{schema['pattern']}"}


def _body(door: Door, settings: Settings) -> Document:
    item = {"$ref": f"{_COMPONENTS}Item"}
    several = {
        "type": "array",
        "items": item,
        "minItems": 1,
        "maxItems": settings.append_max_rows,
    }
    example = {"type": "create", "file_id": "f9", "from": "/docs/plan.md"}
    return {
        "required": True,
        "content": {
            media: (
                {"schema": several, "example": [example]}
                if media == doors.JSON
                # As of a stream, it is the schema of one of them.
                else {"schema": item, "example": example}
            )
            for media in door.bodies
        },
    }


def _security(door: Door, settings: Settings) -> list[Document]:
    """Return the places of a token, of which one is enough."""
    ways: list[Document] = [{"bearer": []}]
    if settings.token_in_cookie:
        ways.append({"cookie": [], "csrf": []} if door.method == "POST" else {"cookie": []})
    if settings.token_in_query:
        ways.append({"query": []})
    return ways


def _security_schemes(settings: Settings) -> Document:
    schemes: Document = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token. One with a `client_id` claim needs a scope:"
            f" `{auth.READ_SCOPE}` or `{auth.WRITE_SCOPE}` to read, `{auth.WRITE_SCOPE}` to write."
            f" `{auth.SERVICE_SCOPE}` makes it a service's.",
        }
    }
    if settings.token_in_cookie:
        schemes["cookie"] = {"type": "apiKey", "in": "cookie", "name": settings.token_cookie}
        schemes["csrf"] = {
            "type": "apiKey",
            "in": "header",
            "name": auth.CSRF_HEADER,
            "description": "The `csrf` claim of the token in the cookie.",
        }
    if settings.token_in_query:
        schemes["query"] = {"type": "apiKey", "in": "query", "name": auth.QUERY_PARAMETER}
    return schemes


# -- what a door answers -------------------------------------------------------------------------


def _responses(door: Door) -> Document:
    found = {str(each.status): _answer(each) for each in door.answers}
    by_status = sorted(door.refusals, key=lambda each: each.status)
    for status, several in groupby(by_status, key=lambda each: each.status):
        found[str(status)] = _refusal(list(several))
    return found


def _answer(answer: Answer) -> Document:
    told: Document = {"description": answer.meaning}
    if answer.headers:
        told["headers"] = {name: _header(value) for name, value in answer.headers.items()}
    if answer.media:
        told["content"] = {answer.media: {"schema": _schema_of(answer)}}
    if answer.example is not None:
        example = {"code": 0, "msg": "", "data": msgspec.to_builtins(answer.example)}
        told["content"][answer.media]["example"] = example
    return told


def _header(value: str | None) -> Document:
    schema = {"type": "string"}
    return {"required": True, "schema": schema if value is None else schema | {"const": value}}


def _schema_of(answer: Answer) -> Document:
    if answer.media == api.STREAM_MEDIA:
        return {"$ref": f"{_COMPONENTS}Frame"}
    if answer.media != doors.JSON:
        return {"type": "string"}
    if answer.shape is None:
        return {"type": "object"}
    inner = {"$ref": _COMPONENTS + answer.shape.__name__}
    if answer.bare:
        return inner
    return {
        "type": "object",
        "properties": {"code": {"const": 0}, "msg": {"const": ""}, "data": inner},
        "required": ["code", "msg", "data"],
        "additionalProperties": False,
    }


def _refusal(refusals: Sequence[Refusal]) -> Document:
    """Describe all refusals of one status."""
    codes = sorted({each.code for each in refusals})
    own: Document = {"properties": {"code": {"enum": codes}}}
    shaped = dict.fromkeys(each.data.__name__ for each in refusals if each.data is not None)
    if shaped:
        own["properties"]["data"] = {"anyOf": [{"$ref": _COMPONENTS + name} for name in shaped]}
        if all(each.data for each in refusals):
            own["required"] = ["data"]
    told: Document = {
        "description": "; ".join(f"{each.code}: {_plain(each.when)}" for each in refusals),
        "content": {doors.JSON: {"schema": {"allOf": [{"$ref": f"{_COMPONENTS}Problem"}, own]}}},
    }
    headers = _headers_of(refusals[0])
    if headers:
        told["headers"] = headers
    return told


def _headers_of(refusal: Refusal) -> Document:
    if refusal.status == errors.Unauthorized.status:
        return {"WWW-Authenticate": _header("Bearer")}
    if getattr(refusal.error, "retry_after_seconds", None) is not None:
        return {
            "Retry-After": {
                "required": True,
                "description": "Seconds to wait.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return {}


def schemas() -> Document:
    """Return the schema of each shape by its name."""
    _, found = msgspec.json.schema_components(_SHAPES, ref_template=_COMPONENTS + "{name}")
    found["Item"] |= submission.BY_TYPE
    return {**found, "Frame": _frame()}


def _frame() -> Document:
    """Describe a frame as every reader of server-sent events hands it over."""
    change = {"$ref": f"{_COMPONENTS}Change"}
    told = {"anyOf": [change, {"type": "array", "items": change, "minItems": 1}]}
    return {
        "title": "Frame",
        "description": "One server-sent event of a stream.\n\n"
        + "\n".join(f"- `{name}`: {meaning}" for name, meaning in doors.FRAMES),
        "type": "object",
        "properties": {
            "event": {"enum": [name for name, _ in doors.FRAMES]},
            "id": {"type": "string", "description": "The cursor. Missing while a stream is held."},
            "retry": {
                "type": "integer",
                "description": "Milliseconds to wait before the next connection; in the frame that"
                " begins a stream.",
            },
            "data": {"type": "string"},
        },
        "required": ["event", "data"],
        "if": {"properties": {"event": {"const": sse.EVENT}}},
        "then": {
            "properties": {"data": {"contentMediaType": doors.JSON, "contentSchema": told}},
            "required": ["id"],
        },
        "else": {"properties": {"data": {"const": "[]"}}},
    }

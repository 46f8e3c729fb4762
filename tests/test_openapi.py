"""The document says what the doors do: the same paths, parameters, limits, shapes and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import hypothesis
import msgspec
import pytest
import schemathesis
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from events_app import doors, errors, event, openapi, settings, shapes, sse, submission, uri
from events_app.errors import BadParameter
from events_app.parameter import Parameter
from events_app.settings import Settings
from tests import tokens

DEFAULT = Settings()
DOORS = doors.table(DEFAULT)
# Each once, though several doors take it.
PARAMETERS = {
    f"{one.name}-{one.schema.get('maximum', '')}": one for door in DOORS for one in door.parameters
}
# Texts that fit a long pattern take long to make.
few = hypothesis.settings(max_examples=20)
EVENTS_PATH = "/api/v4/file/events"
GET, POST = "get", "post"


def document(**variables: str) -> dict[str, Any]:
    """Make the document of a deployment; settings by their names without EVENTS_."""
    environment = {f"EVENTS_{name}": value for name, value in variables.items()}
    return openapi.document(settings.load(environment))


def parameters_of(told: Mapping[str, Any], path: str, method: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in told["paths"][path][method]["parameters"]}


# -- the document --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [{}, {"TOKEN_IN_COOKIE": "true", "TOKEN_IN_QUERY": "true", "URI_SCHEME": "files+x"}],
    ids=["default", "all"],
)
def test_it_is_valid(variables: dict[str, str]) -> None:
    told = document(**variables)
    assert told["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(told).validate()


def test_what_is_not_valid_would_be_noticed() -> None:
    told = document()
    del told["paths"][EVENTS_PATH][GET]["responses"]
    told["paths"][EVENTS_PATH][GET]["parameters"][0]["in"] = "nowhere"
    with pytest.raises(ValueError, match="nowhere"):
        schemathesis.openapi.from_dict(told).validate()


def test_its_paths_and_methods_are_the_apps() -> None:
    app = tokens.app()
    served = {
        (rule.rule, method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    told = {(path, each.upper()) for path, one in document()["paths"].items() for each in one}
    assert told == served


def test_every_error_of_a_request_is_somewhere_in_it() -> None:
    told = {refusal.error for door in DOORS for refusal in door.refusals}
    assert set(errors.RequestError.__subclasses__()) <= told


def test_names_of_operations_are_headings_of_their_own() -> None:
    assert len({door.name for door in DOORS}) == len({door.heading for door in DOORS}) == len(DOORS)


def test_no_link_leads_out_of_it() -> None:
    """The pages that the texts link to are not where the document is."""
    assert "](" not in msgspec.json.encode(document()).decode()
    assert any("](" in door.text for door in DOORS)


# -- what this deployment takes --------------------------------------------------------------------


def test_the_limits_are_those_of_the_deployment() -> None:
    told = document(APPEND_MAX_ROWS="7", APPEND_MAX_BYTES="2000", PAYLOAD="object")
    post = told["paths"][EVENTS_PATH][POST]
    assert post["requestBody"]["content"]["application/json"]["schema"]["maxItems"] == 7
    assert "2,000" in post["description"]
    payload = parameters_of(told, EVENTS_PATH, GET)["payload"]
    assert payload["schema"]["default"] == "object"


def test_the_scheme_is_that_of_the_deployment() -> None:
    folder = parameters_of(document(URI_SCHEME="files"), EVENTS_PATH, GET)["uri"]
    assert folder["schema"]["default"] == "files://my"
    assert re.fullmatch(folder["schema"]["pattern"], "Files://my/a")
    assert not re.fullmatch(folder["schema"]["pattern"], "cloudreve://my/a")


def test_a_token_is_told_where_it_is_taken() -> None:
    told = document()
    assert list(told["components"]["securitySchemes"]) == ["bearer"]
    assert told["paths"][EVENTS_PATH][GET]["security"] == [{"bearer": []}]
    assert told["paths"]["/healthz"][GET]["security"] == []
    told = document(TOKEN_IN_COOKIE="true", TOKEN_COOKIE="mine", TOKEN_IN_QUERY="true")
    schemes = told["components"]["securitySchemes"]
    assert (schemes["cookie"]["name"], schemes["query"]["name"]) == ("mine", "access_token")
    get, post = (told["paths"][EVENTS_PATH][each]["security"] for each in (GET, POST))
    assert get == [{"bearer": []}, {"cookie": []}, {"query": []}]
    assert post == [{"bearer": []}, {"cookie": [], "csrf": []}, {"query": []}]


# -- what the doors take, and what it says of that -------------------------------------------------


def takes(one: Parameter[Any], text: str) -> bool:
    """Tell whether a parameter is read without complaint."""
    try:
        value = one.value_of(text)
        if one.name == "uri":
            uri.named(value, scheme=DEFAULT.uri_scheme)
    except BadParameter:
        return False
    return True


def fits(schema: Mapping[str, Any], text: str) -> bool:
    """Tell whether a text fits the schema of a parameter."""
    if "enum" in schema:
        return text in schema["enum"]
    if "pattern" in schema:
        short = len(text) <= schema.get("maxLength", len(text))
        return short and re.fullmatch(schema["pattern"], text) is not None
    try:
        number = int(text) if schema["type"] == "integer" else float(text)
    except ValueError:
        return False
    return bool(schema["minimum"] <= number <= schema["maximum"])


def fitting(schema: Mapping[str, Any]) -> SearchStrategy[str]:
    """Make texts that fit."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(bool)
    bounds = schema["minimum"], schema["maximum"]
    numbers = st.integers(*bounds) if schema["type"] == "integer" else st.floats(*bounds)
    return numbers.map(json.dumps)


def near(schema: Mapping[str, Any]) -> SearchStrategy[str]:
    """Make texts of which some fit and some just do not."""
    texts = fitting(schema)
    cut = st.tuples(texts, st.text(max_size=2), st.integers(0, 40)).map(
        lambda drawn: drawn[0][: drawn[2]] + drawn[1] + drawn[0][drawn[2] + 1 :]
    )
    number = st.text("0123456789.-+e_ x", min_size=1)
    return st.one_of(texts, cut, number, st.text()).filter(bool)


@pytest.mark.parametrize("name", PARAMETERS)
@few
@hypothesis.given(data=st.data())
def test_what_does_not_fit_its_schema_is_refused(name: str, data: st.DataObject) -> None:
    """What Python reads as a number and JSON does not, such as an infinity, too."""
    one = PARAMETERS[name]
    text = data.draw(near(one.schema))
    assert fits(one.schema, text) or not takes(one, text)


# Some days that fit the pattern of a moment there are not.
EXACT = [name for name, one in PARAMETERS.items() if one.name not in {"since", "until"}]


@pytest.mark.parametrize("name", EXACT)
@few
@hypothesis.given(data=st.data())
def test_what_fits_its_schema_is_taken(name: str, data: st.DataObject) -> None:
    one = PARAMETERS[name]
    assert takes(one, data.draw(fitting(one.schema)))


def test_an_empty_parameter_is_none() -> None:
    for one in PARAMETERS.values():
        assert one.value_of("") == one.value_of(None) == one.default


@pytest.mark.parametrize("name", [name for name, one in PARAMETERS.items() if one.example])
def test_examples_fit(name: str) -> None:
    one = PARAMETERS[name]
    assert one.example is not None
    assert takes(one, one.example)
    assert fits(one.schema, one.example)


# -- what the doors answer -------------------------------------------------------------------------


ANSWERS = {door.name: (door, answer) for door in DOORS for answer in door.answers if answer.example}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_example_is_of_its_shape(name: str) -> None:
    door, answer = ANSWERS[name]
    assert answer.shape is not None
    told = document()["paths"][door.path][door.method.lower()]["responses"][str(answer.status)]
    data = told["content"][doors.JSON]["example"]["data"]
    assert msgspec.convert(data, answer.shape) == answer.example


def test_a_change_is_in_pages_what_it_is_in_frames() -> None:
    change = event.Change("rename", "f", "/a", "/b")
    assert list(msgspec.to_builtins(shapes.change(change)).items()) == list(
        sse.document(change).items()
    )


def test_the_frames_are_the_five() -> None:
    told = document()["components"]["schemas"]["Frame"]["properties"]["event"]["enum"]
    assert told == ["subscribed", "resumed", "event", "keep-alive", "reconnect-required"]


def test_the_keys_of_a_change_that_is_posted_are_those_that_are_read() -> None:
    item = document()["components"]["schemas"]["Item"]
    assert list(item["properties"]) == submission.KEYS
    assert item["additionalProperties"] is False


# -- the door to it --------------------------------------------------------------------------------


def test_it_is_served_without_a_token_and_not_sent_twice() -> None:
    client = tokens.app(APPEND_MAX_ROWS="7").test_client()
    answer = client.get(doors.DOCUMENT_PATH)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.get_json() == document(APPEND_MAX_ROWS="7", JWT_SECRET=tokens.SECRET)
    tag = answer.headers["ETag"]
    again = client.get(doors.DOCUMENT_PATH, headers={"If-None-Match": tag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)


def test_it_holds_no_secret() -> None:
    answer = tokens.app().test_client().get(doors.DOCUMENT_PATH)
    assert tokens.SECRET not in answer.text
    assert "sqlite" not in answer.text

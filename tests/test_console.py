"""The page and its headers, as any program gets them; what it does is tried in a real browser."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from events_app import console
from tests import tokens
from tests.databases import ROOT

BUILD = "import setuptools.build_meta as b; b.build_wheel('built'); b.build_sdist('built')"


def get(path: str = console.PATH, method: str = "GET", **headers: str) -> TestResponse:
    return tokens.app().test_client().open(path, method=method, headers=headers)


class Inline(HTMLParser):
    """The texts of elements that a policy is about, and the addresses that a page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.attributes: list[tuple[str, str | None]] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"}:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data


def policy(answer: TestResponse) -> dict[str, str]:
    directives = answer.headers["Content-Security-Policy"].split("; ")
    return {name: value for name, _, value in (each.partition(" ") for each in directives)}


def test_it_is_a_page_that_needs_no_token() -> None:
    answer = get()
    assert (answer.status_code, answer.content_type) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")
    expected = {
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex",
    }
    assert {name: answer.headers[name] for name in expected} == expected


def test_its_own_script_and_style_are_all_that_it_may_load() -> None:
    answer = get()
    found = Inline(answer.text).texts
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in found.items()
    }
    assert policy(answer) == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashes['script']}'",
        "style-src": f"'sha256-{hashes['style']}'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


def test_nothing_in_it_leads_elsewhere() -> None:
    answer = get()
    attributes = Inline(answer.text).attributes
    named = {name: value or "" for name, value in attributes if name in {"src", "href", "action"}}
    assert list(named) == ["href"]
    assert named["href"].startswith("data:image/svg+xml,")
    assert re.findall(r"https?:[^'\"\s]*", answer.text) == ["http://www.w3.org/2000/svg"]
    # Neither as attributes: the policy would refuse them.
    assert not any(name == "style" or name.startswith("on") for name, _ in attributes)


def test_it_is_not_sent_twice() -> None:
    tag = get().headers["ETag"]
    again = get(**{"If-None-Match": tag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    assert get(**{"If-None-Match": '"another"'}).status_code == 200


def test_head_tells_the_headers_alone() -> None:
    whole, head = get(), get(method="HEAD")
    assert (head.status_code, head.data) == (200, b"")
    for each in (whole, head):
        del each.headers["Date"]
    assert head.headers == whole.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_else_can_be_done_to_it(method: str) -> None:
    answer = get(method=method)
    assert answer.status_code == 405
    assert set(re.split(", *", answer.headers["Allow"])) == {"GET", "HEAD", "OPTIONS"}
    assert answer.get_json()["code"] == 405


def test_it_knows_what_this_deployment_is_configured_for() -> None:
    app = tokens.app(URI_SCHEME="files", KEEP_ALIVE="7.5")
    text = app.test_client().get(console.PATH).text
    assert 'value="files://my"' in text
    assert 'data-keep-alive="7.5"' in text
    assert 'data-events="/api/v4/file/events"' in text
    assert "cloudreve" not in text
    assert "$" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)


def test_it_holds_no_secret() -> None:
    text = get().text
    assert tokens.SECRET not in text
    assert "sqlite" not in text


def test_its_script_ends_where_the_browser_thinks() -> None:
    """An end tag in a text of it would end it, and what follows would be markup."""
    assert Inline(get().text).texts["script"] == console.parts().script


def test_it_is_in_what_is_installed(tmp_path: Path) -> None:
    """Who installs a wheel, and who makes one from the source that was published, has the page."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "events_app", tmp_path / "events_app", ignore=ignored)
    subprocess.run(
        [sys.executable, "-c", f"import os; os.mkdir('built'); {BUILD}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    (wheel,), (source,) = tmp_path.glob("built/*.whl"), tmp_path.glob("built/*.tar.gz")
    with zipfile.ZipFile(wheel) as packed, tarfile.open(source) as published:
        inside, outside = packed.namelist(), published.getnames()
    for file in console.FOLDER.iterdir():
        name = f"events_app/console_page/{file.name}"
        assert name in inside
        assert any(each.endswith(name) for each in outside)

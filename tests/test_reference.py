"""The written reference is what the table of settings says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from events_app import doors, reference, settings, tour

ROOT = Path(__file__).parents[1]


def test_the_page_is_the_table() -> None:
    written = (ROOT / "docs/reference/settings.md").read_text()
    assert written == reference.page(), (
        "run: python -m events_app.reference > docs/reference/settings.md"
    )


def test_the_example_is_the_table() -> None:
    written = (ROOT / ".env.example").read_text()
    assert written == reference.environment(), (
        "run: python -m events_app.reference env > .env.example"
    )


def test_the_page_of_the_doors_is_their_table() -> None:
    written = (ROOT / "docs/reference/http.md").read_text()
    assert written == tour.page(), (
        "run: python -m events_app.reference http > docs/reference/http.md"
    )


def test_every_door_has_a_heading_and_every_parameter_a_row() -> None:
    sections = tour.page().split("\n## ")
    for door in doors.table(settings.Settings()):
        (section,) = [each for each in sections if each.startswith(f"{door.heading}\n")]
        assert f"`{door.method} {door.path}`" in section
        for one in door.parameters:
            assert re.search(rf"^\| .*`{one.header or one.name}`", section, re.MULTILINE), one.name
        for refusal in door.refusals:
            assert f"| {refusal.when} | {refusal.status} | {refusal.code} |" in section


def test_every_setting_has_one_row_and_one_line() -> None:
    names = [setting.name for setting in settings.SETTINGS]
    assert re.findall(r"^\| `(\w+)`", reference.page(), re.MULTILINE) == names
    assert re.findall(r"^#(EVENTS_\w+)=", reference.environment(), re.MULTILINE) == names


def test_the_example_with_its_marks_removed_is_the_defaults() -> None:
    lines = re.findall(r"^#(EVENTS_\w+)=(.*)$", reference.environment(), re.MULTILINE)
    assert settings.load(dict(lines)) == settings.Settings()


def test_the_example_by_itself_sets_nothing() -> None:
    lines = reference.environment().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [([], reference.page), (["env"], reference.environment), (["http"], tour.page)],
)
def test_the_command_prints_it(arguments: list[str], text: object) -> None:
    assert callable(text)
    command = [sys.executable, "-m", "events_app.reference", *arguments]
    assert subprocess.check_output(command, cwd=ROOT, text=True) == text()

"""Parse and clean the URI of a watched folder; say whether a path lies below it.

``scheme://[user-id@]my[/path][?search]``, or ``scheme://share-id[:password]@share[/path][?search]``
for what somebody else shares, is RFC 3986 with three differences, all of them the protocol's: the
path is percent-decoded first and cleaned afterwards, so ``%2F`` separates segments like ``/``;
there is no fragment, so ``#`` is an ordinary character; there is no port.

Rules: an absolute clean path is ``/`` or ``/a/b``: no ``//``, no ``.`` or ``..`` segment, no slash
at the end. Every function but `parse`, `named` and `clean_path` expects clean paths. Paths compare
character by character and by whole segments. Nothing here quotes the caller's text in an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib import parse as urllib_parse

from events_app import errors

FILE_SYSTEM = "my"
SHARES = "share"

# The journal's CHECK on paths: a folder that is longer can hold no change.
MAX_PATH_BYTES = 4096

# The longest path, every byte of it escaped, takes 12,288. What is longer than this is an accident
# or an attack, and is refused before it is looked at.
MAX_TEXT_CHARACTERS = 16_000

# Every folder above a watched one is looked for by name: of a path of single letters there would be
# 2,000, with four megabytes of names in each statement.
MAX_DEPTH = 256

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

# RFC 3629, section 4, each byte escaped: what decodes to characters, and to no NUL.
_TAIL = "%[89A-Ba-b][0-9A-Fa-f]"
_ESCAPES = "|".join(
    [
        "%(0[1-9A-Fa-f]|[1-7][0-9A-Fa-f])",
        f"%([Cc][2-9A-Fa-f]|[Dd][0-9A-Fa-f]){_TAIL}",
        f"%([Ee]0%[A-Ba-b]|[Ee][Dd]%[89])[0-9A-Fa-f]{_TAIL}",
        f"%[Ee][1-9A-CE-Fa-ce-f]{_TAIL}{_TAIL}",
        f"%([Ff]0%[9A-Ba-b]|[Ff]4%8)[0-9A-Fa-f]{_TAIL}{_TAIL}",
        f"%[Ff][1-3]{_TAIL}{_TAIL}{_TAIL}",
    ]
)


@dataclass(frozen=True, slots=True)
class Folder:
    """A watched folder: its file system, its clean absolute path, whose it is.

    `owner_id` is empty where it is the watcher's own.
    """

    fs: str
    path: str
    owner_id: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """A folder below a mounted share; `path` is clean and ``/`` is what is shared."""

    share_id: str
    path: str


def parse(text: str, *, scheme: str, user_id: str) -> Folder | Share:
    """Return the folder or share that `text` names for the user `user_id`.

    `scheme` is the configured scheme in lower case. Raises `errors.BadParameter` when the text is
    unusable and says why, else `errors.ForeignFolder` when it names another user's tree.
    """
    user, place = named(text, scheme=scheme)
    if place.path.count("/") > MAX_DEPTH:
        raise _bad(f"the folder is more than {MAX_DEPTH} deep")
    if user not in {None, user_id}:
        raise errors.ForeignFolder
    return place


def named(text: str, *, scheme: str) -> tuple[str | None, Folder | Share]:
    """Return the user that `text` names, or None, and the folder or share.

    `scheme` is the configured scheme in lower case. Raises `errors.BadParameter` when the text is
    unusable and says why.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        raise _bad(f"longer than {MAX_TEXT_CHARACTERS} characters")
    found, separator, rest = text.partition("://")
    # RFC 3986 section 3.1: schemes are case-insensitive.
    if not separator or found.lower() != scheme:
        raise _bad(f"it must begin with {scheme}://")
    # Section 3.2: the authority ends at the next slash or question mark.
    authority, slash, raw_path = rest.partition("?")[0].partition("/")
    # The last @ ends the user, so that an address as user id works with and without escapes.
    raw_user, at, host = authority.rpartition("@")
    mount = _mount(host)
    if mount == SHARES:
        # Who may watch a share is said by its grants, and not by who knows its password.
        raw_user = raw_user.partition(":")[0]
    user = _decode(raw_user) if at else None
    if user == "":
        raise _bad("the user or share before @ is empty")
    path = _decode(slash + raw_path)
    if len(path.encode()) > MAX_PATH_BYTES:
        raise _bad(f"the path is longer than {MAX_PATH_BYTES} bytes")
    if mount == FILE_SYSTEM:
        return user, Folder(FILE_SYSTEM, clean_path(path))
    if user is None:
        raise _bad("no share stands before @")
    return None, Share(user, clean_path(path))


def pattern(scheme: str) -> str:
    """Return the pattern of what `named` takes, as long as the path is not too long.

    In words that every dialect of patterns has, so without flags.
    """

    def in_any_case(text: str) -> str:
        return "".join(f"[{c.upper()}{c}]" if c.isalpha() else re.escape(c) for c in text)

    def text(*excluded: str) -> str:
        return rf"([^%?\x00{''.join(excluded)}]|{_ESCAPES})"

    own = f"({text('/')}+@)?{in_any_case(FILE_SYSTEM)}"
    shared = f"{text('/', ':')}+(:[^/?]*)?@{in_any_case(SHARES)}"
    return rf"^{in_any_case(scheme)}://({own}|{shared})(/{text()}*)?(\?[\s\S]*)?$"


def clean_path(path: str) -> str:
    """Return decoded `path` as an absolute clean path; it cannot climb above ``/``.

    RFC 3986 section 5.2.4, and empty segments and a slash at the end go too.
    """
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    return "/" + "/".join(kept)


def at_or_below(path: str, folder_path: str) -> bool:
    """Say whether `path` is `folder_path` itself or lies anywhere below it."""
    return folder_path in {"/", path} or path.startswith(folder_path + "/")


def relative(path: str, folder_path: str) -> str:
    """Return `path` as seen from `folder_path`, with one leading slash; the folder itself is ``/``.

    Raises ValueError when `path` is not at or below the folder.
    """
    if not at_or_below(path, folder_path):
        message = "the path is not below the folder"
        raise ValueError(message)
    if folder_path == "/":
        return path
    return path[len(folder_path) :] or "/"


def ancestors(path: str) -> tuple[str, ...]:
    """Return `path` itself and every folder above it, nearest first, ``/`` last."""
    found = []
    while path not in {"", "/"}:
        found.append(path)
        path = path.rpartition("/")[0]
    return (*found, "/")


def _mount(host: str) -> str:
    # Section 3.2.2: the host is case-insensitive. It stands for the file system here.
    name, colon, _port = host.partition(":")
    if name.lower() not in {FILE_SYSTEM, SHARES}:
        raise _bad(f"the only file systems served are {FILE_SYSTEM} and {SHARES}")
    if colon:
        raise _bad("it has a port")
    return name.lower()


def _decode(text: str) -> str:
    """Percent-decode once (RFC 3986 section 2.1); the result is valid UTF-8 without NUL."""
    if _BAD_ESCAPE.search(text):
        raise _bad("a % that two hexadecimal digits do not follow")
    try:
        decoded = urllib_parse.unquote_to_bytes(text).decode()
    except UnicodeError:
        raise _bad("not valid UTF-8") from None
    if "\0" in decoded:
        raise _bad("it holds a NUL")
    return decoded


def _bad(reason: str) -> errors.BadParameter:
    return errors.BadParameter(f"uri: {reason}")

"""The ways in which a network may cut a body into chunks."""

from collections.abc import Iterator


def one_byte_each(body: bytes) -> list[bytes]:
    """As slow as a network can be."""
    return [body[at : at + 1] for at in range(len(body))]


def every_split(body: bytes) -> Iterator[list[bytes]]:
    """All the ways to cut `body` into two chunks, and the whole of it in one."""
    yield [body]
    for at in range(1, len(body)):
        yield [body[:at], body[at:]]

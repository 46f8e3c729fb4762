"""What one worker has counted since it began: plain numbers, for whoever asks."""

from __future__ import annotations

from collections import Counter


class Tally:
    """Counts of one worker; every one of them only ever rises."""

    __slots__ = (
        "answered",
        "begun",
        "ended",
        "folded_rows",
        "forgotten",
        "frames",
        "polled",
        "refused",
        "sent_bytes",
        "told_changes",
    )

    def __init__(self) -> None:
        """Begin at zero."""
        self.answered: Counter[tuple[str, int]] = Counter()
        """Requests by their door and the status of the answer."""
        self.begun: Counter[tuple[str, str]] = Counter()
        """Streams by the frame that began them, and why it was that one."""
        self.ended: Counter[str] = Counter()
        """Streams by why they ended."""
        self.refused: Counter[str] = Counter()
        """Requests by the cap that refused them."""
        self.forgotten: Counter[tuple[str, str]] = Counter()
        """Subscriptions by why they went, and whether they were ever resumed."""
        self.frames: Counter[str] = Counter()
        """Written frames by their name."""
        self.polled: Counter[str] = Counter()
        """Requests for pages by how they were answered."""
        self.sent_bytes = 0
        """Bytes of these frames."""
        self.folded_rows = 0
        """Rows that were folded into what these frames tell."""
        self.told_changes = 0
        """Changes in these frames: what folding left."""

    def forgot(self, reason: str, *, never_resumed: int, resumed: int) -> None:
        """Count subscriptions that went."""
        self.forgotten[reason, "false"] += never_resumed
        self.forgotten[reason, "true"] += resumed

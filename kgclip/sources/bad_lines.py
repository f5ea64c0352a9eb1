"""Lines that cannot be read: an error that names the line, or counted, skipped and reported."""

from __future__ import annotations

import warnings
from pathlib import Path

from kgclip.tables import GraphError

NUM_SHOWN = 3


class BadLines:
    """What to do with the bad lines of a file of one record a line.

    Args:
        file: The file.
        on_error: ``"raise"``, or ``"skip"``: leave bad lines out, and warn how many there were of
            each kind and where the first ones stand.

    Raises:
        GraphError: If ``on_error`` is neither.
    """

    def __init__(self, file: Path, on_error: str) -> None:
        if on_error not in ("raise", "skip"):
            raise GraphError(f"on_error={on_error!r}: expected 'raise' or 'skip'")
        self.file = file
        self.skips = on_error == "skip"
        self.lines: dict[str, list[int]] = {}

    def add(self, line: int, kind: str, detail: str) -> None:
        """Note a bad line.

        Args:
            line: Its number, from 1.
            kind: What is wrong, as lines are counted by, such as ``"wrong number of fields"``.
            detail: What was found, what was expected and how to mend it.

        Raises:
            GraphError: If bad lines are not skipped; says file, line and detail.
        """
        if not self.skips:
            raise GraphError(f"{self.file}:{line}: {detail}")
        self.lines.setdefault(kind, []).append(line)

    def report(self) -> None:
        """Warn of what was skipped, one warning a file; silent if nothing was."""
        if not self.lines:
            return
        parts = [
            f"{len(lines)} × {kind} (line {', '.join(map(str, lines[:NUM_SHOWN]))}"
            f"{', …' if len(lines) > NUM_SHOWN else ''})"
            for kind, lines in self.lines.items()
        ]
        count = sum(map(len, self.lines.values()))
        warnings.warn(f"{self.file}: {count} lines skipped: {'; '.join(parts)}", stacklevel=3)

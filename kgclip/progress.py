"""The progress bar of everything that takes longer than a moment."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def build_progress(console: Console | None = None) -> Progress:
    """Return a progress bar on stderr; it stays silent where there is no terminal.

    Args:
        console: Where to; the default is stderr.

    Returns:
        A context manager whose tasks have a field ``loss``, shown as it is.
    """
    console = console or Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )

"""The progress bar of everything that takes longer than a moment."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # which takes longer to load than many a file
    from rich.console import Console
    from rich.progress import Progress

QUIET_SECONDS = 2.0  # what is done sooner shows no bar
T = TypeVar("T")


def build_progress(console: Console | None = None) -> Progress:
    """Return a progress bar on stderr; it stays silent where there is no terminal.

    Args:
        console: Where to; the default is stderr.

    Returns:
        A context manager whose tasks have a field ``loss``, shown as it is.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

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


def track(
    items: Iterable[T], description: str, size: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Yield items of which nobody knows how many there are; a line says how much has passed.

    Args:
        items: Any number of them.
        description: What is done, as "reading facts.nt".
        size: How much an item counts.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(description, total=None)
    began = time.monotonic()
    try:
        for item in items:
            yield item
            bar.advance(task, size(item))
            if time.monotonic() - began > QUIET_SECONDS:
                bar.start()  # does nothing when it is shown already
    finally:
        bar.stop()


@contextlib.contextmanager
def waiting(description: str) -> Iterator[None]:
    """Say what is done while something without parts takes long; only a terminal sees it.

    Args:
        description: What is done, as "compiling".
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    line = Console(stderr=True).status(description)
    timer = threading.Timer(QUIET_SECONDS, line.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # which may have begun to show the line
        line.stop()

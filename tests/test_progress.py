import io
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from kgclip import progress
from kgclip.progress import build_progress, track, waiting


def run(console):
    with build_progress(console) as progress:
        bar = progress.add_task("training", total=2, loss="")
        progress.update(bar, advance=1, loss="loss 0.5000")
        progress.refresh()


def test_a_terminal_sees_count_and_loss():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    run(console)
    assert "1/2" in console.file.getvalue()
    assert "loss 0.5000" in console.file.getvalue()


def test_a_file_sees_nothing():
    console = Console(file=io.StringIO(), force_terminal=False)
    run(console)
    assert console.file.getvalue().strip() == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_tracking_shows_what_takes_long(monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1)
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert list(track("ab", "reading", lambda _: 700)) == ["a", "b"]
    assert "reading" in sys.stderr.getvalue()


@pytest.mark.parametrize(("quiet_seconds", "is_shown"), [(0, True), (60, False)])
def test_waiting_says_what_takes_long(monkeypatch, quiet_seconds, is_shown):
    monkeypatch.setattr(progress, "QUIET_SECONDS", quiet_seconds)
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with waiting("compiling"):
        time.sleep(0.2)
    assert ("compiling" in sys.stderr.getvalue()) == is_shown
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_nothing_is_loaded_for_a_bar_that_nobody_sees():
    script = (
        "import sys; from kgclip.progress import track, waiting; "
        "list(track('ab', 'reading')); waiting('x').__enter__(); "
        "sys.exit('rich' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL)

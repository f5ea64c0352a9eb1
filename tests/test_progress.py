import io
import subprocess
import sys

from rich.console import Console

from kgclip import progress
from kgclip.progress import build_progress, track


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


def test_nothing_is_loaded_for_a_bar_that_nobody_sees():
    script = (
        "import sys; from kgclip.progress import track; list(track('ab', 'reading')); "
        "sys.exit('rich' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL)

import io

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


def test_tracking_shows_what_takes_long(monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    assert list(track("ab", "reading", lambda _: 700)) == ["a", "b"]
    assert "reading" in console.file.getvalue()

"""Bad lines stop the reading, or are counted and reported."""

import warnings
from pathlib import Path

import pytest

from kgclip.sources.bad_lines import BadLines
from kgclip.tables import GraphError


def test_raising_says_where():
    with pytest.raises(GraphError, match=r"^a\.csv:7: 2 fields$"):
        BadLines(Path("a.csv"), "raise").add(7, "cut", "2 fields")


def test_skipping_reports_each_kind_once():
    bad = BadLines(Path("a.csv"), "skip")
    for line in (3, 5, 8, 9):
        bad.add(line, "cut", "")
    bad.add(4, "no text", "")
    with pytest.warns(UserWarning, match=r"a\.csv: 5 lines skipped: 4 × cut \(line 3, 5, 8, …\); "):
        bad.report()


def test_nothing_skipped_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BadLines(Path("a.csv"), "skip").report()


def test_other_choices_are_refused():
    with pytest.raises(GraphError, match="'raise' or 'skip'"):
        BadLines(Path("a.csv"), "ignore")

from collections import Counter

from tests.conftest import REASONS, SKIPPED, skip_problems, stated_counts

STATED = Counter(cuda=1, data=2)


def test_stated_file_names_every_reason():
    assert sorted(stated_counts(SKIPPED.read_text())) == sorted(REASONS)


def test_stated_counts_ignore_comments():
    assert stated_counts("# cuda 9\n\ncuda 1  # GPU\ndata 2\n") == STATED


def test_no_problem_when_all_is_as_stated():
    absent = {"cuda": False, "data": False}
    assert skip_problems(STATED, STATED, STATED, absent) == []
    present = {"cuda": True, "data": True}
    assert skip_problems(STATED, STATED, Counter(), present) == []


def test_a_new_test_that_needs_data_is_noticed_where_the_data_is():
    present = {"cuda": True, "data": True}
    problems = skip_problems(STATED, Counter(cuda=1, data=3), Counter(), present)
    assert problems == ["3 tests need data, skipped.txt states 2; mend the line if that is meant"]


def test_a_skip_though_the_data_is_there_is_noticed():
    problems = skip_problems(STATED, STATED, Counter(cuda=1, data=1), {"cuda": False, "data": True})
    assert problems == ["1 tests skipped for data, expected 0"]


def test_any_other_reason_is_noticed():
    skipped = STATED + Counter({"could not import 'foo'": 1})
    (problem,) = skip_problems(STATED, STATED, skipped, {"cuda": False, "data": False})
    assert "could not import 'foo'" in problem

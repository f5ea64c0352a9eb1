import io

import pytest
from rich.console import Console

from kgclip.experiments.pool import count_step, run_jobs


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} given")
    count_step(1)
    return number * number


def test_answers_come_in_the_order_of_the_jobs_and_an_error_ends_it():
    console = Console(file=io.StringIO(), width=80)
    assert run_jobs(square, [3, 1, 2], [1, 1, 1], "squaring", console) == [9, 1, 4]
    assert "3/3 steps" in console.file.getvalue()
    with pytest.raises(ValueError, match="-1 given"):
        run_jobs(square, [-1], [1], "squaring", console)

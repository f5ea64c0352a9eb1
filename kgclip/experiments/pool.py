"""One process a core, one thread a process: how experiments train several models at once.

Jobs go in, answers come out in the same order, with a progress bar over all of them. One thread
is what makes two runs equal; one process a core is what fills the machine.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_done: Any = None  # steps done by each job, shared with the parent for its progress bar
_number = 0  # of the job that this process works at


def run_jobs(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    steps: Sequence[int],
    title: str,
    console: Console,
) -> list[Any]:
    """Do every job in a process of its own, as many at once as there are cores.

    Args:
        work: A function at the top of a module, from a job to an answer; both can be pickled.
            It calls :func:`count_step`.
        jobs: The longest first, so that no core idles at the end.
        steps: Of each job.
        title: Of the progress bar.
        console: Where the bar is shown.

    Returns:
        Answers in the order of the jobs.
    """
    context = multiprocessing.get_context("spawn")  # torch and fork do not go together
    done = context.Array("i", len(jobs))
    with (
        concurrent.futures.ProcessPoolExecutor(
            min(len(jobs), os.cpu_count() or 1),
            mp_context=context,
            initializer=_start_worker,
            initargs=(done,),
        ) as pool,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            console=console,
        ) as progress,
    ):
        bar = progress.add_task(title, total=sum(steps))
        futures = [pool.submit(_work, work, number, job) for number, job in enumerate(jobs)]
        waiting = set(futures)
        while waiting:
            finished, waiting = concurrent.futures.wait(waiting, timeout=0.5)
            progress.update(bar, completed=sum(done[:]))
            for future in finished:
                future.result()  # an error ends it all at once, not after the last job
    return [future.result() for future in futures]


def count_step(step: int) -> None:
    """Tell the parent's progress bar how many steps this job has done."""
    if _done is not None:
        _done[_number] = step


def _start_worker(done: Any) -> None:
    global _done
    _done = done
    torch.set_num_threads(1)


def _work(work: Callable[[Any], Any], number: int, job: Any) -> Any:
    global _number
    _number = number
    return work(job)


def read_curve(log: Path) -> list[dict[str, float]]:
    """Training log as written by the trainer, one mapping a logged step."""
    with log.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

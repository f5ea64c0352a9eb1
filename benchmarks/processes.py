"""One measurement a process: its seconds and its peak memory, nobody else's."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


def run_alone(script: str, *arguments: str, threads: int = 1) -> dict[str, Any]:
    """Run a script in a fresh process and read the JSON of its last line.

    Args:
        script: File; it should print what :func:`measured` returns.
        arguments: Of its command line.
        threads: Of polars, OpenMP and the like.
    """
    limits = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS"), str(threads))
    run = subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, **limits},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def measured(job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do a job; returns what it says, its wall and CPU seconds, and the process's peak memory."""
    before = peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    result = job()
    return {
        **result,
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "import_mb": before,
        "peak_mb": peak_mib(),
    }


def peak_mib() -> float:
    """Peak memory of this process alone, in MiB.

    On Linux not from ``getrusage``, whose peak a new process inherits from the one that started it.
    """
    if _STATUS.is_file():
        return _status_mib("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mib() -> float:
    """Memory that this process holds now, in MiB; on Linux alone."""
    return _status_mib("VmRSS")


def _status_mib(field: str) -> float:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def write_report(file: Path, question: str, packages: list[str], **content: Any) -> None:
    """Write figures as JSON, with machine, versions, command and date."""
    report = {
        "question": question,
        "command": " ".join(["python", Path(sys.argv[0]).as_posix(), *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        **content,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

"""Everything that the README shows runs, and every path that it names exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kgclip.cli import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FACTS = (
    "Kenya\tcapital\tNairobi\nUganda\tcapital\tKampala\nKenya\tborders\tUganda\n"
    "Uganda\tborders\tKenya\nKenya\tregion\tAfrica\nUganda\tregion\tAfrica\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the reader brings: facts, two pictures, and my.toml cut down to two steps."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "facts.tsv").write_text(FACTS)
    Image.new("RGB", (64, 64), "green").save(folder / "kenya.png")
    Image.new("RGB", (64, 64), "gold").save(folder / "uganda.png")
    (config,) = [text for language, text in BLOCKS if language == "toml"]
    short, replaced = re.subn(r"steps = \d+", "steps = 2", config)
    assert replaced == 1
    (folder / "my.toml").write_text(short)
    return folder


def test_python_blocks_run_one_after_the_other(folder):
    blocks = [text for language, text in BLOCKS if language == "python"]
    assert len(blocks) == 4
    graph_half = [block for block in blocks if re.search(r"^import kgclip$", block, re.MULTILINE)]
    assert len(graph_half) == 2
    for block in blocks:
        check = "\nimport sys\nassert 'torch' not in sys.modules" if block in graph_half else ""
        run = subprocess.run(
            [sys.executable, "-c", block + check], cwd=folder, capture_output=True, text=True
        )
        assert run.returncode == 0, f"{block}\n{run.stderr}"
        assert run.stdout.strip(), f"prints nothing:\n{block}"


def test_the_tour_names_files_that_exist():
    tour = README.partition("## A guided tour")[2].partition("\n## ")[0]
    paths = re.findall(r"^\d+\. `([^`]+)`:", tour, re.MULTILINE)
    assert 8 <= len(paths) <= 10
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert len(local) >= 5
    assert [link for link in local if not (ROOT / link).is_file()] == []


def test_every_named_command_exists():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)) <= set(targets)
    named = set(re.findall(r"\bkgclip (build|inspect|train|evaluate|demo)\b", README))
    assert named
    assert named <= set(COMMANDS)

"""Every block of the documentation runs, every page is built, the picture is that of LAYOUT."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pyoxigraph as ox
import pytest

from kgclip.cli import COMMANDS, PAGES
from tests.dependency_picture import draw
from tests.sources.test_sparql import Server
from tests.test_layout import LAYOUT

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES_WITH_BLOCKS = ("build", "analyse", "train", "cli", "tutorial")
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"python", "bash", "csv", "toml", "turtle", "json"}
ENDPOINT = "https://query.wikidata.org/sparql"
KGCLIP = "from kgclip.cli import main; main()"


def blocks(page: str) -> list[tuple[str, str, str]]:
    return BLOCK.findall((DOCS / f"{page}.md").read_text("utf-8"))


@pytest.fixture(scope="module")
def endpoint():
    """Address of a real SPARQL server that stands in for the public one."""
    fact = "<http://www.wikidata.org/entity/Q114> wdt:P36 <http://www.wikidata.org/entity/Q3870> ."
    data = f"@prefix wdt: <http://www.wikidata.org/prop/direct/> . {fact}"
    with Server() as server:
        server.store.load(data.encode(), format=ox.RdfFormat.TURTLE)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.address
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("page", PAGES_WITH_BLOCKS)
def test_every_block_runs(page, tmp_path, endpoint):
    run_blocks(page, tmp_path, endpoint)


def test_the_path_on_photographs_runs(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("KGCLIP_DATA", str(shared_data))
    run_blocks("photographs", tmp_path)
    ((_, _, config),) = [block for block in blocks("photographs") if block[1] == "coco.toml"]
    assert config == (ROOT / "benchmarks" / "configs" / "coco.toml").read_text("utf-8")


def run_blocks(page, tmp_path, endpoint=ENDPOINT):
    """Run a page's blocks one after the other in a folder; files that it shows are written."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    (scripts / "kgclip").write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{KGCLIP}' \"$@\"\n"
    )
    (scripts / "kgclip").chmod(0o755)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for language, title, text in blocks(page):
        text = text.replace(ENDPOINT, endpoint)
        if title:  # a file that the page shows
            (tmp_path / title).write_text(re.sub(r"steps = \d+", "steps = 2", text))
            continue
        command = [sys.executable, "-c", text] if language == "python" else ["sh", "-ec", text]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{text}\n{run.stderr}"
        assert run.stdout.strip(), f"prints nothing:\n{text}"


def test_no_block_is_overlooked():
    for page in DOCS.rglob("*.md"):
        text = page.read_text("utf-8")
        found = BLOCK.findall(text)
        assert len(found) * 2 == len(re.findall(r"^```", text, re.MULTILINE)), page
        assert {language for language, _, _ in found} <= LANGUAGES, page
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert not found or name in (*PAGES_WITH_BLOCKS, "photographs", "index"), page


def test_pages_are_built_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    run = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "site" / "dependencies.svg").read_text("utf-8") == draw()
    assert "mine_rules" in (tmp_path / "site" / "reference" / "analysis.html").read_text("utf-8")
    outside = [
        (page.name, address)
        for page in (tmp_path / "site").rglob("*.html")
        for address in re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]+)"', page.read_text())
    ]
    assert outside == []


def test_every_command_has_its_page_and_its_row():
    assert set(PAGES) == set(COMMANDS)
    table = (DOCS / "cli.md").read_text("utf-8")
    for command, page in PAGES.items():
        assert (DOCS / f"{page}.md").is_file()
        assert re.search(rf"^\| `{command}` \|.*\({page}\.md\)", table, re.MULTILINE), command


def test_the_picture_shows_every_part():
    picture = draw()
    assert picture == draw()
    for part in {module.partition(".")[0] for module in LAYOUT} - {"kgclip"}:
        assert f">{part}</text>" in picture


@pytest.mark.slow
def test_a_new_user_gets_a_report_in_five_commands(tmp_path):
    """The block of the first page, in an environment of its own; pip needs its registry."""
    (text,) = [text for language, _, text in blocks("index") if language == "bash"]
    assert len(text.splitlines()) <= 5
    for name in ("kgclip", "graphs", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        source, target = ROOT / name, tmp_path / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), environment.get("PATH", "")]
    )
    run = subprocess.run(
        ["sh", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 relations" in (tmp_path / "report.html").read_text("utf-8")

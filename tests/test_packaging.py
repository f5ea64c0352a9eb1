import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from kgclip.cli import EXTRAS

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run = subprocess.run(
        [*command, "--no-index", "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def requirements(*extras: str) -> set[str]:
    optional = PROJECT["optional-dependencies"]
    listed = PROJECT["dependencies"] + [line for extra in extras for line in optional[extra]]
    return {line for line in listed if not line.startswith("kgclip[")}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name).group()).lower()


def test_environment_lists_what_pyproject_lists():
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    assert f"python{PROJECT['requires-python']}" in conda
    assert len(pip["pip"]) == len(set(pip["pip"]))
    assert set(pip["pip"]) == requirements(*PROJECT["optional-dependencies"])


def test_version_is_the_newest_of_the_changelog():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"]


def test_version_is_what_the_package_says():
    import kgclip

    assert kgclip.__version__ == PROJECT["version"]


def test_missing_packages_are_explained_by_the_extra_that_brings_them():
    distributions = importlib.metadata.packages_distributions()
    for extra in ("train", "demo", "analysis"):
        listed = {normalised(line) for line in PROJECT["optional-dependencies"][extra]} - {"kgclip"}
        explained = {
            normalised(distributions[package][0])
            for package, named in EXTRAS.items()
            if named == extra
        }
        assert explained == listed


def test_the_graph_half_installs_without_torch():
    names = {normalised(line) for line in PROJECT["dependencies"]}
    optional = {
        normalised(distribution)
        for package in EXTRAS
        for distribution in importlib.metadata.packages_distributions()[package]
    }
    assert not names & optional


def test_wheel_holds_every_file_that_the_package_reads(wheel):
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kgclip").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {f"kgclip/graphs/{path.name}" for path in (ROOT / "graphs").glob("*.toml")}
    assert "kgclip/py.typed" in expected
    assert "kgclip/graphs/openmoji.toml" in expected
    assert any(name.startswith("kgclip/nn/model_configs/") for name in expected)
    assert not expected - set(wheel.namelist())


def test_wheel_carries_the_licence_and_the_notice(wheel):
    names = {Path(name).name for name in wheel.namelist() if ".dist-info/" in name}
    assert {"LICENSE", "NOTICE"} <= names


def test_wheel_holds_no_picture_and_no_weights(wheel):
    suffixes = {Path(name).suffix for name in wheel.namelist()}
    assert not suffixes & {".png", ".jpg", ".svg", ".safetensors", ".pt", ".pth", ".pkl"}


@pytest.mark.slow
def test_wheel_runs_the_demo_from_an_empty_folder(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    program = (
        "import kgclip\nfrom kgclip.cli import main\n"
        "if __name__ == '__main__':\n    print(kgclip.__file__)\n    main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "demo", "--quick", "--seeds", "5"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(tmp_path / "site"))
    assert "OpenMoji" in run.stdout
    metrics = json.loads((empty / "runs/demo/metrics.json").read_text("utf-8"))
    assert (metrics["split_seed"], metrics["seeds"]) == (1234, [5])
    assert {"clip", "verbalised", "propagation", "symbolic", "knowledge"} <= set(metrics["results"])
    key = "new_entities/fact_to_image/linked/mrr"
    assert 0 < metrics["results"]["knowledge"][key]["mean"] < 1
    assert "CC BY-SA 4.0" in (empty / "runs/demo/report.html").read_text("utf-8")


def test_licence_is_the_one_that_pyproject_names():
    assert PROJECT["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_notice_names_every_package_of_the_demo():
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for line in PROJECT["optional-dependencies"]["demo"]:
        if not line.startswith("kgclip["):
            assert line.partition("==")[0] in notice

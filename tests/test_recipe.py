"""A recipe gives the same bytes each time, or says what is wrong with it."""

import hashlib
import tomllib

import pytest

from kgclip.recipe import Recipe, build_graph, load_recipe, recipe_folder
from kgclip.tables import GraphError

RECIPE = """
name = "small"
[[sources]]
path = "a.tsv"
[[sources]]
path = "b.tsv"
options = { header = true }
[select]
min_degree = 1
[splits]
method = "triples"
seed = 3
"""


@pytest.fixture
def folder(tmp_path):
    lines = [f"e{i % 9}\tr{i % 3}\te{i * i % 11}" for i in range(40)]
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    (tmp_path / "b.tsv").write_text("head\trelation\ttail\ne1\tr9\tnew\n")
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path


def contents(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_sources_are_merged_selected_and_split(folder):
    graph = build_graph(folder / "small.toml", output=folder / "out")
    assert "new" in graph.entities["name"].to_list()
    assert set(graph.triples["split"]) == {"train", "valid", "test"}
    assert [origin.name for origin in graph.origins] == ["a.tsv", "b.tsv"]


def test_the_same_recipe_gives_the_same_bytes(folder):
    build_graph(folder / "small.toml", output=folder / "one")
    build_graph(folder / "small.toml", output=folder / "two")
    assert contents(folder / "one") == contents(folder / "two")
    build_graph(folder / "small.toml", {"splits.seed": 4}, output=folder / "two")
    assert contents(folder / "one") != contents(folder / "two")


def test_without_output_the_graph_goes_to_the_cache(folder, monkeypatch):
    monkeypatch.setenv("KGCLIP_CACHE", str(folder / "cache"))
    graph = build_graph(folder / "small.toml")
    assert graph.root.parent == folder / "cache"
    assert build_graph(folder / "small.toml") == graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name =", "nmae ="), r"small\.toml: .*unknown key 'nmae'; did you mean 'name'"),
        (('path = "a.tsv"', 'pth = "a.tsv"'), "did you mean 'path'"),
        (("min_degree = 1", "min_degre = 1"), "did you mean 'min_degree'"),
        (("min_degree = 1", 'min_degree = "one"'), r"select\.min_degree: .*'one'"),
        (('"triples"', '"tripels"'), "expected one of triples, world"),
        (("seed = 3", "sede = 3"), "did you mean 'seed'"),
        (("header = true", "haeder = true"), "did you mean 'header'"),
        (('"a.tsv"', '"absent.tsv"'), r"absent\.tsv: no such file"),
        (('path = "a.tsv"', "options = {}"), "neither path nor format"),
        (("[select]", "[select"), "not a TOML file"),
        (('path = "a.tsv"', 'path = "a.tsv"\nsha256 = "00"'), "sha256 is .* the recipe says 00"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(folder, change, message):
    (folder / "small.toml").write_text(RECIPE.replace(*change, 1))
    before = contents(folder)
    with pytest.raises(GraphError, match=message):
        build_graph(folder / "small.toml", output=folder / "out")
    assert contents(folder) == before


def test_checksum_that_fits(folder):
    digest = hashlib.sha256((folder / "a.tsv").read_bytes()).hexdigest()
    text = RECIPE.replace('path = "a.tsv"', f'path = "a.tsv"\nsha256 = "{digest}"')
    (folder / "small.toml").write_text(text)
    assert build_graph(folder / "small.toml", output=folder / "out").num_triples == 41


def test_names_and_overrides(folder):
    with pytest.raises(GraphError, match="did you mean 'openmoji'"):
        load_recipe("openmoij")
    with pytest.raises(GraphError, match="no such recipe file"):
        load_recipe(folder / "absent.toml")
    with pytest.raises(GraphError, match="'name' is a value"):
        load_recipe(folder / "small.toml", {"name.x": 1})
    for key in ("sources.1.options.size", "sources.x.options.size", "sources.0"):
        with pytest.raises(GraphError, match="is a value"):
            load_recipe("openmoji", {key: 1})
    recipe, _ = load_recipe("openmoji", {"splits.seed": 7, "sources.0.options.size": 64})
    assert recipe.sources[0].options == {"size": 64, "tone_share": 4}
    assert recipe.splits.seed == 7


def test_an_interrupted_build_leaves_nothing(folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kgclip.recipe.save_tables", interrupt)
    before = contents(folder)
    with pytest.raises(KeyboardInterrupt):
        build_graph(folder / "small.toml", output=folder / "out")
    assert contents(folder) == before
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("file", sorted(recipe_folder().glob("*.toml")), ids=lambda f: f.stem)
def test_every_recipe_that_ships_is_valid(file):
    recipe, _ = load_recipe(file)
    assert recipe.name
    assert recipe.description
    assert recipe.licence


def test_the_template_documents_every_field():
    text = (recipe_folder() / "template.toml").read_text()
    models = [Recipe, *(Recipe.model_fields[name].annotation for name in ("select", "splits"))]
    fields = {key for model in models[:1] for key in model.model_fields}
    fields |= {"format", "path", "sha256", "options", "relations", "min_degree"}
    fields |= {"largest_component", "seeds", "hops", "method", "seed"}
    missing = {field for field in fields if f"{field} =" not in text and f"[{field}" not in text}
    assert not missing
    assert tomllib.loads(text)

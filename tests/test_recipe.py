"""A recipe gives the same bytes each time, or says what is wrong with it."""

import hashlib
import re
import tomllib

import polars as pl
import pytest

from kgclip.recipe import (
    ImageRecipe,
    MentionRecipe,
    MergeRecipe,
    Recipe,
    SelectRecipe,
    SourceRecipe,
    SplitRecipe,
    TextRecipe,
    build_graph,
    load_recipe,
    recipe_folder,
)
from kgclip.sources import SOURCES
from kgclip.tables import GraphError
from tests.sources.test_conceptnet import line
from tests.sources.test_scene_graphs import V14
from tests.sources.test_scene_graphs import write as write_scenes
from tests.sources.test_wordnet import WNDB

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
        (('"triples"', '"tripels"'), "expected one of triples, scenes, world"),
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


def test_prefixes_and_rules_decide_what_is_one(folder):
    (folder / "a.tsv").write_text("/c/en/hot_dog\tIsA\tfood\n")
    (folder / "b.tsv").write_text("hot dog\tIsA\tmeal\nbun\tPartOf\thot dog\n")
    (folder / "small.toml").write_text("""
name = "joined"
sources = [{ path = "a.tsv" }, { path = "b.tsv", prefix = "b:", relation_prefix = "b/" }]
merge = [{ match = "b:(.+)", into = '/c/en/\\1', spaces = "_" }]
texts = { template = "a {type} called {name}" }
""")
    graph = build_graph(folder / "small.toml", output=folder / "out")
    assert graph.entities["name"].to_list() == ["/c/en/hot_dog", "food", "b:bun", "b:meal"]
    assert graph.relations.select("name", "label").rows() == [
        ("IsA", None), ("b/IsA", "IsA"), ("b/PartOf", "PartOf")
    ]  # fmt: skip
    assert graph.links.rows() == [(0, "b:hot dog")]
    assert graph.texts["text"].to_list()[0] == "a thing called hot dog"
    assert graph.triples["tail"].to_list() == [1, 3, 0]


def test_paths_start_from_the_recipe_the_data_folder_or_here(folder, monkeypatch):
    (folder / "data").mkdir()
    (folder / "a.tsv").rename(folder / "data" / "a.tsv")
    monkeypatch.setenv("KGCLIP_DATA", str(folder / "data"))
    assert build_graph(folder / "small.toml", output=folder / "out").num_triples == 41
    monkeypatch.delenv("KGCLIP_DATA")
    with pytest.raises(GraphError, match=r"a\.tsv: no such file; looked for in .*KGCLIP_DATA"):
        build_graph(folder / "small.toml", output=folder / "out")
    monkeypatch.chdir(folder / "data")
    assert build_graph(folder / "small.toml", output=folder / "out").num_triples == 41


def test_pictures_of_files_come_along(folder):
    (folder / "i.csv").write_text("e1,p/1.png\ne2,p/2.png\n")
    (folder / "p").mkdir()
    (folder / "p" / "1.png").write_bytes(b"picture")
    source = '[[sources]]\npath = "i.csv"\nformat = "entity_images"\n[select]'
    (folder / "small.toml").write_text(RECIPE.replace("[select]", source))
    with pytest.warns(UserWarning, match="1 pictures are not there, kept by name"):
        graph = build_graph(folder / "small.toml", output=folder / "out")
    assert graph.images["path"].to_list() == ["images/2/p/1.png", "p/2.png"]
    assert graph.image_path(0).read_bytes() == b"picture"
    options = {"images.copy": False, "images.missing": "drop"}
    with pytest.warns(UserWarning, match="left out"):
        graph = build_graph(folder / "small.toml", options, output=folder / "out")
    assert graph.images["path"].to_list() == [str(folder / "p" / "1.png")]
    with pytest.raises(GraphError, match=r"2\.png: no such picture"):
        build_graph(folder / "small.toml", {"images.missing": "error"}, output=folder / "out")


# What a recipe that ships reads here, in the place of what its user fetches.
def conceptnet_excerpt(folder, data):
    return data / "conceptnet5_excerpt" / "assertions" / "assertions.csv"


def small_conceptnet(folder, data):
    lines = [
        line("/r/IsA", "/c/en/dog/n", "/c/en/animal", 2.0),
        line("/r/UsedFor", "/c/en/hot_dog", "/c/en/eating"),
        line("/r/IsA", "/c/en/dog", "/c/en/pet", 0.1),
    ]
    (folder / "cn.csv").write_text("".join(lines))
    return folder / "cn.csv"


def small_wordnet(folder, data):
    for name, text in WNDB.items():
        (folder / "dict").mkdir(exist_ok=True)
        (folder / "dict" / name).write_text(text)
    return folder / "dict"


def small_visual_genome(folder, data):
    (folder / "vg").mkdir()
    return write_scenes(folder / "vg", **V14)


def visual_genome_excerpt(folder, data):
    return data / "visual_genome_excerpt" / "v1.2.0"


@pytest.mark.filterwarnings("ignore:.*pictures are not there")
@pytest.mark.parametrize(
    ("name", "sources", "entities"),
    [
        ("conceptnet-en", [conceptnet_excerpt], ["/c/en/test", "/c/en/hard_questions"]),
        ("conceptnet-en", [small_conceptnet], ["/c/en/dog", "/c/en/hot_dog"]),
        ("wordnet", [small_wordnet], ["dog.n.01", "animal.n.01"]),
        ("visual-genome", [visual_genome_excerpt], ["object:1/1058498", "class:clock"]),
        ("mixture", [small_conceptnet, small_wordnet, small_visual_genome], ["/c/en/dog"]),
        ("mixture", [conceptnet_excerpt, small_wordnet, visual_genome_excerpt], ["clock.n.01"]),
    ],
)
def test_recipes_that_ship_run(shared_data, tmp_path, name, sources, entities):
    overrides = {
        f"sources.{number}.path": str(source(tmp_path, shared_data))
        for number, source in enumerate(sources)
    }
    graph = build_graph(name, overrides, output=tmp_path / "out")
    assert set(entities) <= set(graph.entities["name"])
    assert graph.texts["entity"].n_unique() > 0.5 * graph.num_entities
    build_graph(name, overrides, output=tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    split = build_graph(name, {**overrides, "splits.method": "triples"}, output=tmp_path / "out")
    assert not leaks(split)


def leaks(graph):
    """Pairs of entities of validation and test that training knows."""
    pairs = {}
    for head, tail, split in graph.triples.select("head", "tail", "split").iter_rows():
        pairs.setdefault(split, set()).add(frozenset((head, tail)))
    return pairs["train"] & (pairs.get("test", set()) | pairs.get("valid", set()))


def test_the_mixture_knows_one_dog(tmp_path):
    sources = (small_conceptnet, small_wordnet, small_visual_genome)
    overrides = {
        f"sources.{number}.path": str(source(tmp_path, None))
        for number, source in enumerate(sources)
    }
    with pytest.warns(UserWarning, match="1 pictures are not there"):
        graph = build_graph("mixture", overrides, output=tmp_path / "out")
    dog = graph.entity_id("/c/en/dog")
    links = graph.links.filter(pl.col("entity") == dog)["url"].to_list()
    assert {"dog.n.01", "class:dog", "n00000010"} <= set(links)
    relations = graph.relations["name"]
    said = graph.triples.filter((pl.col("head") == dog) | (pl.col("tail") == dog))
    assert {"/r/IsA", "wn:hypernym", "vg:instance_of", "vg:in_synset"} <= {
        relations[number] for number in said["relation"]
    }
    assert "class:puppy" in graph.entities["name"].to_list(), "nobody else knows a puppy"
    assert graph.entities["type"][dog] == "noun"


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
    values = tomllib.loads(text)
    assert Recipe.model_validate(values)
    for owner, given in (
        (Recipe, values), (SourceRecipe, values["sources"][0]), (MergeRecipe, values["merge"][0]),
        (SelectRecipe, values["select"]), (TextRecipe, values["texts"]),
        (ImageRecipe, values["images"]), (SplitRecipe, values["splits"]),
        (MentionRecipe, values["mentions"]),
    ):  # fmt: skip
        fields = {field.alias or name for name, field in owner.model_fields.items()}
        assert fields <= given.keys(), owner.__name__
    formats = text[text.index("format =") : text.index("path =")]
    assert set(SOURCES) <= set(re.findall(r"\w+", formats))

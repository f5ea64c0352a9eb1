"""From a recipe to a graph: sources, what to keep, how to split.

A recipe is a TOML file; ``graphs/template.toml`` documents every field. The same recipe gives
the same bytes.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.metadata
import inspect
import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pydantic

from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.joining import Rule, add_prefixes, apply_rules, fill_texts, keep_near
from kgclip.linking import add_mentions
from kgclip.pictures import place_pictures
from kgclip.settings import override
from kgclip.sources import find_reader, guess_format
from kgclip.storage import save_tables
from kgclip.tables import GraphError, Tables

SPLITS = {
    "triples": "kgclip.splits:split_triples",
    "scenes": "kgclip.splits:split_scenes",
    "world": "kgclip.sources.openmoji_splits:split_world",
}


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class SourceRecipe(_Part):
    """One source.

    Attributes:
        format: A key of ``kgclip.sources.SOURCES``; by the file's suffix if absent.
        path: File or folder: relative to the recipe, else to ``KGCLIP_DATA``, else to the current
            folder; absent where packages are the source.
        sha256: Checksum of the file, checked before it is read.
        options: Keyword arguments of the reader.
        prefix: Put before the name of every entity of this source.
        relation_prefix: Put before the name of every relation of this source.
        name: Written into the column ``source`` of its triples, by which a training config sets
            their share; ``None`` = what the reader wrote there.
        hops: Keep only triples at most this far from the entities of the other sources;
            ``None`` = all.
    """

    format: str | None = None
    path: str | None = None
    sha256: str | None = None
    options: dict[str, Any] = {}
    prefix: str = ""
    relation_prefix: str = ""
    name: str | None = None
    hops: int | None = pydantic.Field(default=None, ge=1)


class MergeRecipe(_Part):
    """A rule by which entities of different sources become one; see ``kgclip.joining.Rule``."""

    match: str
    into: str
    spaces: str = " "
    existing: bool = True


class MentionRecipe(_Part):
    """How captions are linked to entities; see ``kgclip.linking.add_mentions``."""

    relation: str = "mentions"
    types: list[str] | None = None
    kinds: list[str] = ["label", "alias"]
    stop_words: list[str] = []


class TextRecipe(_Part):
    """What entities without any text are called.

    Attributes:
        template: With ``{name}``, ``{key}`` or ``{type}``; see ``kgclip.joining.fill_texts``.
    """

    template: str


class ImageRecipe(_Part):
    """What happens to the pictures of sources that are files.

    Attributes:
        root: Folder of the pictures; ``None`` = each source's own.
        copy_files: Copy them into the graph; else their path becomes absolute.
        missing: Rows whose file is not there: "keep", "drop" or "error".
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    root: str | None = None
    copy_files: bool = pydantic.Field(default=True, alias="copy")
    missing: Literal["keep", "drop", "error"] = "keep"


class SelectRecipe(_Part):
    """What to keep; see :meth:`kgclip.graph.KnowledgeGraph.select`."""

    relations: list[str] | None = None
    min_degree: int = 0
    largest_component: bool = False
    seeds: list[str] | None = None
    hops: int = 1


class SplitRecipe(pydantic.BaseModel):
    """How to split.

    Attributes:
        method: A key of ``SPLITS``; every further key is a keyword argument of its function.
        seed: Decides what is held out.
    """

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    method: str
    seed: int = 0


class Recipe(_Part):
    """A recipe.

    Attributes:
        name: Of the graph.
        description: What it holds.
        licence: Of the data.
        attribution: Credit that whoever shows the data must show.
        sources: Read in this order and merged by name.
        merge: Rules by which entities of different names become one.
        select: What to keep of them.
        splits: How to split what is kept.
        mentions: How captions are linked to entities; ``None`` = they are not.
        texts: What entities without a text are called; ``None`` = nothing.
        images: What happens to pictures.
    """

    name: str
    description: str = ""
    licence: str = ""
    attribution: str = ""
    sources: list[SourceRecipe] = pydantic.Field(min_length=1)
    merge: list[MergeRecipe] = []
    select: SelectRecipe | None = None
    splits: SplitRecipe | None = None
    mentions: MentionRecipe | None = None
    texts: TextRecipe | None = None
    images: ImageRecipe = ImageRecipe()


def load_recipe(
    name: str | Path, overrides: Mapping[str, object] | None = None
) -> tuple[Recipe, Path]:
    """Read and check a recipe.

    Args:
        name: Of a recipe that ships with kgclip, or the path of a TOML file.
        overrides: Values by dotted key, as in ``{"splits.seed": 7}``.

    Returns:
        The recipe, and the folder that its paths start from.

    Raises:
        GraphError: If there is no such recipe, or a key or value is wrong; names the nearest.
    """
    file = _find_recipe(str(name))
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GraphError(f"{file}: not a TOML file: {error}") from error
    override(values, overrides)
    try:
        return Recipe.model_validate(values), file.parent
    except pydantic.ValidationError as error:
        problems = [_explain(found) for found in error.errors()]
        raise GraphError(f"{file}: {'; '.join(problems)}") from error


def _find_recipe(name: str) -> Path:
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise GraphError(f"{name}: no such recipe file")
        return Path(name)
    folder = recipe_folder()
    known = sorted(file.stem for file in folder.glob("*.toml"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise GraphError(
            f"no recipe {name!r}; {hint}known: {', '.join(known)}, or give a path to a .toml file"
        )
    return folder / f"{name}.toml"


def recipe_folder() -> Path:
    """Folder of the recipes: package data in a wheel, ``graphs/`` in a checkout."""
    here = Path(__file__).parent
    return here / "graphs" if (here / "graphs").is_dir() else here.parent / "graphs"


def _explain(found: Any) -> str:
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] != "extra_forbidden":
        return f"{key}: {found['msg']}, given: {found.get('input')!r}"
    parts: dict[str, Any] = {
        "sources": SourceRecipe, "select": SelectRecipe, "merge": MergeRecipe, "texts": TextRecipe,
        "images": ImageRecipe, "mentions": MentionRecipe,
    }  # fmt: skip
    owner = parts.get(str(found["loc"][0]) if len(found["loc"]) > 1 else "", Recipe)
    near = difflib.get_close_matches(str(found["loc"][-1]), owner.model_fields, n=1, cutoff=0)
    return f"unknown key {key!r}; did you mean {near[0]!r}? known: {', '.join(owner.model_fields)}"


def build_graph(
    name: str | Path,
    overrides: Mapping[str, object] | None = None,
    output: str | Path | None = None,
) -> KnowledgeGraph:
    """Build a graph from a recipe.

    Args:
        name: Of a recipe that ships with kgclip, or the path of a TOML file.
        overrides: Values by dotted key, as in ``{"splits.seed": 7}``.
        output: Folder to save the graph in; ``None`` = a folder of the cache (``KGCLIP_CACHE``,
            else ``~/.cache/kgclip``), where the same recipe is found again.

    Returns:
        The saved graph.

    Raises:
        GraphError: If the recipe, a source or the output cannot be used; nothing half-written
            is left.
    """
    recipe, folder = load_recipe(name, overrides)
    cached = output is None
    target = _cache_folder(recipe) if output is None else Path(output)
    if cached and target.is_dir() and all(source.path is None for source in recipe.sources):
        return load_graph(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    pictures = Path(tempfile.mkdtemp(prefix=f".{target.name}.pictures.", dir=target.parent))
    try:
        graphs = _read_sources(recipe, folder, pictures)
        rules = [Rule(**rule.model_dump()) for rule in recipe.merge]
        tables = apply_rules(graphs[0].merge(*graphs[1:]).tables, rules)
        counts = [graph.num_triples for graph in graphs]
        graph = KnowledgeGraph(_keep_near(tables, recipe.sources, counts))
        if recipe.mentions is not None:
            graph = add_mentions(graph, **recipe.mentions.model_dump())
        if recipe.texts is not None:
            graph = KnowledgeGraph(fill_texts(graph.tables, recipe.texts.template))
        if recipe.select is not None:
            graph = graph.select(**recipe.select.model_dump())
        tables = graph.tables if recipe.splits is None else _split(graph.tables, recipe.splits)
        os.chmod(pictures, 0o755)
        save_tables(tables, target, pictures=pictures if any(pictures.iterdir()) else None)
    finally:
        shutil.rmtree(pictures, ignore_errors=True)
    return load_graph(target)


def _cache_folder(recipe: Recipe) -> Path:
    """One folder for each resolved recipe and version of ours."""
    base = os.environ.get("KGCLIP_CACHE") or Path.home() / ".cache" / "kgclip"
    version = importlib.metadata.version("kgclip")
    digest = hashlib.sha256(f"{version}\n{recipe.model_dump_json()}".encode()).hexdigest()
    return Path(base) / f"{recipe.name}-{digest[:16]}"


def _keep_near(tables: Tables, sources: list[SourceRecipe], counts: list[int]) -> Tables:
    """Drop what is too far from the other sources; the last sources first, whose rows come last."""
    for number in reversed(range(len(sources))):
        hops = sources[number].hops
        if hops is not None:
            first = sum(counts[:number])
            tables = keep_near(tables, first, first + counts[number], hops)
    return tables


def _read_sources(recipe: Recipe, folder: Path, pictures: Path) -> list[KnowledgeGraph]:
    graphs = []
    for number, source in enumerate(recipe.sources):
        if source.path is None:
            reader = find_reader(_format_of(source), source.options)
            tables = reader(pictures, **source.options)
        else:
            file = find_source(source.path, folder)
            if source.sha256 is not None:
                _check_digest(file, source.sha256)
            reader = find_reader(source.format or guess_format(file), source.options)
            tables = reader(file, **source.options)
            own = file if file.is_dir() else file.parent
            tables = place_pictures(
                tables,
                own if recipe.images.root is None else find_source(recipe.images.root, folder),
                copy_to=pictures / str(number) if recipe.images.copy_files else None,
                prefix=f"images/{number}",
                missing=recipe.images.missing,
            )
        tables = add_prefixes(tables, source.prefix, source.relation_prefix)
        if source.name is not None:
            triples = tables.triples.with_columns(source=pl.lit(source.name))
            tables = dataclasses.replace(tables, triples=triples)
        graphs.append(KnowledgeGraph(tables))
    return graphs


def find_source(path: str, folder: Path) -> Path:
    """The file or folder of a recipe's path.

    Args:
        path: Absolute, or relative to ``folder``, to ``KGCLIP_DATA`` or to the current folder.
        folder: Of the recipe.

    Raises:
        GraphError: If it is in none of them.
    """
    data = os.environ.get("KGCLIP_DATA")
    places = [folder, *([Path(data)] if data else []), Path()]
    for place in places:
        if (place / path).exists():
            return place / path
    looked = ", ".join(str(place) for place in places)
    raise GraphError(
        f"{path}: no such file; looked for in {looked}; set KGCLIP_DATA, or the path with --set"
    )


def _format_of(source: SourceRecipe) -> str:
    if source.format is None:
        raise GraphError("a source has neither path nor format; give one of them")
    return source.format


def _check_digest(file: Path, expected: str) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected.lower():
        raise GraphError(f"{file}: sha256 is {found}, the recipe says {expected}; fetch it again")


def _split(tables: Tables, splits: SplitRecipe) -> Tables:
    if splits.method not in SPLITS:
        raise GraphError(f"splits.method {splits.method!r}: expected one of {', '.join(SPLITS)}")
    module, _, name = SPLITS[splits.method].partition(":")
    function = getattr(importlib.import_module(module), name)
    options = splits.model_dump(exclude={"method"})
    known = list(inspect.signature(function).parameters)[1:]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0)
            raise GraphError(
                f"splits.{option}: method {splits.method!r} has no such option; "
                f"did you mean {near[0]!r}? known: {', '.join(known)}"
            )
    result: Tables = function(tables, **options)
    return result

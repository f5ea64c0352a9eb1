"""The OpenMoji world's split: known facts, new entities, unseen pictures.

Tables of :mod:`kgclip.sources.openmoji` come in; the same tables go out with ``triples.split``
and ``images.split`` filled, each part with a validation and a test share:

* *known facts*: countries whose flag occurs only in image-text pairs (``images.split`` is
  ``pairs_*``) while their facts are trained on as text. Asked: flag to fact and back.
* *new entities*: countries of which no training triple knows anything, as head or tail.
  Borders, capital and demonym are given at inference; the other facts are asked.
* *unseen pictures*: whole families of emoji, and new skin tones of trained emoji, whose
  pictures are never shown.
"""

from __future__ import annotations

import re

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kgclip.tables import GraphError, Tables

GIVEN_RELATIONS = ("borders", "capital", "demonym")
ASKED_RELATIONS = ("region", "subregion", "currency", "language")
_PEOPLE = re.compile(
    r"\b(man|woman|men|women|person|people|boy|girl|child|adult|prince|princess|mr|mrs|mx"
    r"|facing right)\b"
)
# Direction, colour and heart say how a thing is shown; they would join what is unrelated.
_SIGNS = {"emoji:27A1", "emoji:2B1B", "emoji:2764"}
_TONE_NAME = re.compile(r"\b(light|medium-light|medium|medium-dark|dark) skin tone\b")


def split_world(
    tables: Tables,
    *,
    seed: int,
    known_share: float = 0.4,
    new_share: float = 0.2,
    family_share: float = 0.12,
    tone_share: float = 0.15,
    valid_share: float = 0.2,
) -> Tables:
    """Fill the ``split`` columns of triples and images.

    Args:
        tables: The OpenMoji world.
        seed: Decides every draw.
        known_share: Share of the countries with facts that are *known facts*.
        new_share: Share of them that are *new entities*.
        family_share: Share of the emoji families whose pictures are unseen.
        tone_share: Share of the remaining skin-tone variants whose pictures are unseen.
        valid_share: Share of each part that is for validation, the rest is for testing.

    Returns:
        The tables with both ``split`` columns filled. A triple that no part uses (a new
        country's membership in the class of flags) has the split null.

    Raises:
        GraphError: If the tables are not the OpenMoji world, or a share is outside [0, 1].
    """
    shares = (known_share, new_share, family_share, tone_share, valid_share)
    if not all(0 <= share <= 1 for share in shares) or known_share + new_share > 1:
        raise GraphError(f"splits: shares {shares}; expected each in [0, 1], known + new at most 1")
    if not set(ASKED_RELATIONS) <= set(tables.relations["name"]):
        raise GraphError(
            f"splits: method 'world' needs the relations {', '.join(ASKED_RELATIONS)}; "
            "use method 'triples' for other graphs"
        )
    generator = np.random.default_rng(seed)
    countries = _countries_with_facts(tables)
    drawn = generator.permutation(countries)
    num_known, num_new = round(known_share * len(drawn)), round(new_share * len(drawn))
    known, new = drawn[:num_known], drawn[num_known : num_known + num_new]
    parts = dict.fromkeys(known.tolist(), "pairs_test") | dict.fromkeys(new.tolist(), "pairs_test")
    for group in (known, new):
        valid = group[: round(valid_share * len(group))].tolist()
        parts |= dict.fromkeys(valid, "pairs_valid")
    unseen = _unseen_pictures(tables, generator, family_share, tone_share, valid_share)
    return Tables(
        **(
            tables.frames()
            | {
                "images": _with_split(tables.images, parts | unseen),
                "triples": _split_triples(tables, {i: parts[i] for i in new.tolist()}),
            }
        ),
        origins=tables.origins,
    )


def _countries_with_facts(tables: Tables) -> np.ndarray:
    relation = pl.Series(tables.relations["name"]).gather(tables.triples["relation"])
    heads = tables.triples["head"].filter(relation != "subgroup")
    kind = tables.entities["type"].gather(heads)
    return heads.filter(kind == "country").unique().sort().to_numpy()


def _with_split(images: pl.DataFrame, parts: dict[int, str]) -> pl.DataFrame:
    split = pl.col("entity").replace_strict(parts, default="train", return_dtype=pl.String())
    return images.with_columns(split=split)


def _split_triples(tables: Tables, new: dict[int, str]) -> pl.DataFrame:
    """Every triple that touches a new country leaves training, in whichever direction."""
    names = tables.relations["name"]
    given = [i for i, name in enumerate(names) if name in GIVEN_RELATIONS]
    asked = [i for i, name in enumerate(names) if name in ASKED_RELATIONS]
    part = {entity: split.removeprefix("pairs_") for entity, split in new.items()}
    touches = pl.col("head").is_in(list(new)) | pl.col("tail").is_in(list(new))
    asked_part = pl.col("head").replace_strict(part, default=None, return_dtype=pl.String())
    split = (
        pl.when(~touches)
        .then(pl.lit("train"))
        .when(pl.col("relation").is_in(given))
        .then(pl.lit("inference"))
        .when(pl.col("relation").is_in(asked))
        .then(asked_part)
    )
    return tables.triples.with_columns(split=split)


def _unseen_pictures(
    tables: Tables,
    generator: np.random.Generator,
    family_share: float,
    tone_share: float,
    valid_share: float,
) -> dict[int, str]:
    families = emoji_families(tables)
    chosen = generator.permutation(len(families))[: round(family_share * len(families))]
    num_valid = round(valid_share * len(chosen))
    parts: dict[int, str] = {}
    for rank, number in enumerate(chosen):
        parts |= dict.fromkeys(families[number], "valid" if rank < num_valid else "test")
    variant = tables.relations["name"].to_list().index("variant_of")
    variants = tables.triples.filter(pl.col("relation") == variant)["head"].unique().sort()
    rest = generator.permutation([entity for entity in variants if entity not in parts])
    tones = rest[: round(tone_share * len(rest))].tolist()
    num_valid = round(valid_share * len(tones))
    return (
        parts | dict.fromkeys(tones[:num_valid], "valid") | dict.fromkeys(tones[num_valid:], "test")
    )


def emoji_families(tables: Tables) -> list[list[int]]:
    """Groups of emoji that picture one concept.

    Relatives are skin-tone variants, the parts of a ZWJ sequence, and emoji of one subgroup
    whose names differ only in who is shown ("man cook", "woman cook", "cook").

    Args:
        tables: The OpenMoji world.

    Returns:
        Entity ids of each family, ascending; each emoji is in exactly one.
    """
    ids = {name: number for number, name in enumerate(tables.relations["name"])}
    emoji = tables.entities.with_row_index("entity").filter(pl.col("type") == "emoji")["entity"]
    labels = tables.texts["text"].to_list()
    links = tables.triples.filter(pl.col("relation").is_in([ids["variant_of"], ids["made_of"]]))
    # "person" is in half of all sequences and would join them all.
    names = tables.entities["name"]
    loose = [i for i in emoji if not _concept(labels[i]) or names[i] in _SIGNS]
    links = links.filter(~pl.col("tail").is_in(loose))
    subgroup = tables.triples.filter(pl.col("relation") == ids["subgroup"])
    first: dict[tuple[int, str], int] = {}
    pairs = list(links.select("head", "tail").iter_rows())
    for entity, group in subgroup.select("head", "tail").iter_rows():
        concept = _concept(labels[entity])
        if concept:
            pairs.append((entity, first.setdefault((group, concept), entity)))
    heads, tails = np.array(pairs).T
    count = len(tables.entities)
    graph = coo_array((np.ones(len(pairs)), (heads, tails)), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    families: dict[int, list[int]] = {}
    for entity in emoji:
        families.setdefault(int(component[entity]), []).append(entity)
    return list(families.values())


def _concept(label: str) -> str:
    """What a name says beyond who is shown: "man cook dark skin tone" -> "cook"."""
    rest = _PEOPLE.sub(" ", _TONE_NAME.sub(" ", label))
    return " ".join(re.findall(r"[^\W_]+", rest.lower()))

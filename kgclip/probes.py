"""Probes: questions that only a model which reads relations can answer.

Files of SugarCrepe, ARO, Winoground, VSR and VL-CheckList, or a graph of the user's own, come in;
:class:`Question` comes out, the one form that all of them fit. What one would not guess: the
text of a question is never changed, so a probe file asks here what it asks in its own paper.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError

VSR_WORDINGS = ("{} (True)", "{} (False)")
GRAPH_KINDS = ("tail", "relation", "swap")
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Question:
    """One or more pictures, and captions of which the first ones belong to them.

    Attributes:
        images: Files, relative to a folder of pictures that the user gives.
        captions: Caption i belongs to picture i; those behind are wrong for every picture.
        kind: What the question is about, for figures by kind.
        box: The part of the picture that is meant: x, y, width, height in pixels.
    """

    images: tuple[str, ...]
    captions: tuple[str, ...]
    kind: str
    box: Box | None = None


def read_probes(
    path: str | Path, format: str | None = None, wordings: tuple[str, str] = VSR_WORDINGS
) -> list[Question]:
    """Read a probe file.

    Args:
        path: A ``.json`` or ``.jsonl`` file.
        format: A key of ``PROBE_FORMATS``; ``None`` = by the keys of its first item.
        wordings: How VSR's statements are put as true and as false; the model is right where the
            wording of the label scores higher.

    Returns:
        The questions, in the file's order.

    Raises:
        GraphError: If the file cannot be read, is of no known format, or an item lacks a key;
            names the file and the item.

    Reference:
        SugarCrepe: Hsieh et al., NeurIPS 2023. ARO: Yuksekgonul et al., ICLR 2023. Winoground:
        Thrush et al., CVPR 2022. VSR: Liu et al., TACL 2023. VL-CheckList: Zhao et al., EMNLP
        2022.
    """
    file = Path(path)
    items = _read_items(file)
    name = format or _guess_format(file, items)
    if name not in PROBE_FORMATS:
        raise GraphError(f"unknown probe format {name!r}; known: {', '.join(PROBE_FORMATS)}")
    questions = []
    for number, item in enumerate(items, 1):
        try:
            questions += PROBE_FORMATS[name](item, file.stem, wordings)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise GraphError(
                f"{file}: item {number}: {type(error).__name__} {error}; a question of {name} "
                f"expected, with the keys {', '.join(sorted(_KEYS[name]))}"
            ) from error
    return questions


def _read_items(file: Path) -> list[Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GraphError(f"{file}: no such file; give the path of a probe file") from None
    except UnicodeDecodeError as error:
        raise GraphError(f"{file}: not UTF-8 ({error})") from error
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = list(_read_lines(file, text))
    items = list(whole.values()) if isinstance(whole, dict) and "caption" not in whole else whole
    items = items if isinstance(items, list) else [items]
    if not items:
        raise GraphError(f"{file}: holds no question")
    return items


def _read_lines(file: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise GraphError(
                f"{file}:{number}: not JSON ({error.msg}); a JSON file, or one JSON object a line "
                "expected"
            ) from error


def _sugarcrepe(item: Any, kind: str, _: tuple[str, str]) -> list[Question]:
    return [Question((item["filename"],), (item["caption"], item["negative_caption"]), kind)]


def _aro(item: Any, kind: str, _: tuple[str, str]) -> list[Question]:
    wrong = item["false_captions"] if "false_captions" in item else [item["false_caption"]]
    names = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
    box = tuple(float(item[name]) for name in names) if "bbox_x" in item else None
    kind = item.get("relation_name") or "_".join(item.get("attributes", ())) or kind
    return [Question((item["image_path"],), (item["true_caption"], *wrong), kind, box)]  # type: ignore[arg-type]  # four names, four numbers


def _winoground(item: Any, kind: str, _: tuple[str, str]) -> list[Question]:
    images = (item["image_0"], item["image_1"])
    return [Question(images, (item["caption_0"], item["caption_1"]), item.get("tag", kind))]


def _vsr(item: Any, kind: str, wordings: tuple[str, str]) -> list[Question]:
    if item["label"] not in (0, 1):
        raise ValueError(f"label {item['label']!r}, 0 or 1 expected")
    true, false = (wording.format(item["caption"]) for wording in wordings)
    captions = (true, false) if item["label"] == 1 else (false, true)
    return [Question((item["image"],), captions, item.get("relation", kind))]


def _vl_checklist(item: Any, kind: str, _: tuple[str, str]) -> list[Question]:
    image, texts = item
    return [
        Question((image,), (right, wrong), kind)
        for right, wrong in zip(texts["POS"], texts["NEG"], strict=True)
    ]


PROBE_FORMATS: dict[str, Callable[[Any, str, tuple[str, str]], list[Question]]] = {
    "sugarcrepe": _sugarcrepe,
    "aro": _aro,
    "winoground": _winoground,
    "vsr": _vsr,
    "vl_checklist": _vl_checklist,
}
_KEYS = {
    "sugarcrepe": {"filename", "caption", "negative_caption"},
    "aro": {"image_path", "true_caption"},
    "winoground": {"image_0", "image_1", "caption_0", "caption_1"},
    "vsr": {"image", "caption", "label"},
    "vl_checklist": {"POS", "NEG"},
}


def _guess_format(file: Path, items: Sequence[Any]) -> str:
    first = items[0]
    keys = first[1] if isinstance(first, list) and len(first) == 2 else first
    given = set(keys) if isinstance(keys, Mapping) else set()
    for name, expected in _KEYS.items():
        if expected <= given:
            return name
    raise GraphError(
        f"{file}: no known probe format; its first item has {', '.join(sorted(given)) or 'no keys'}"
        f"; give format=, one of {', '.join(PROBE_FORMATS)}"
    )


def build_probes(
    graph: KnowledgeGraph,
    kinds: Sequence[str] = GRAPH_KINDS,
    seed: int = 0,
    limit: int | None = None,
) -> list[Question]:
    """Ask about the facts of a graph whose heads have a picture.

    The right caption is "head relation tail" in their labels. ``tail``: another tail of the same
    relation; ``relation``: another relation that ends in the same entity somewhere;
    ``swap``: tail and head exchanged. A wrong caption that the graph says is true, or that reads
    like the right one, is never asked.

    Args:
        graph: With pictures and labels.
        kinds: Of ``GRAPH_KINDS``.
        seed: Decides what is drawn.
        limit: Questions of each kind; ``None`` = one a fact and kind, where there is one.

    Returns:
        Questions with picture files as :meth:`KnowledgeGraph.image_path` gives them.

    Raises:
        GraphError: If a kind is unknown or the graph has no picture.
    """
    for kind in kinds:
        if kind not in GRAPH_KINDS:
            raise GraphError(f"kinds: {kind!r} given, one of {', '.join(GRAPH_KINDS)} expected")
    if not len(graph.images):
        raise GraphError("the graph has no pictures; probes ask about pictured entities")
    generator = np.random.default_rng(seed)
    facts = _Facts(graph)
    rows = generator.permutation(len(facts.pictured))
    questions = []
    for kind in kinds:
        asked = 0
        for row in rows.tolist():
            if asked == limit:
                break
            question = facts.ask(kind, row, generator)
            if question is not None:
                questions.append(question)
                asked += 1
    return questions


class _Facts:
    """A graph as sets, to look up what is true."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self.labels = graph.labels()
        names = graph.relations["label"].fill_null(graph.relations["name"])
        self.relations = names.to_list()
        triples = graph.triples.select("head", "relation", "tail")
        self.true = set(triples.iter_rows())
        self.tails = _lists(triples, "relation", "tail")
        self.into = _lists(triples, "tail", "relation")
        images = graph.images.with_row_index("row").unique("entity", keep="first")
        self.picture = {
            entity: (str(graph.image_path(row)), box)
            for row, entity, box in images.select("row", "entity", "box").iter_rows()
        }
        heads = pl.DataFrame({"head": list(self.picture)}, schema={"head": pl.Int64})
        distinct = triples.unique(maintain_order=True)
        self.pictured = distinct.join(heads, on="head", how="semi", maintain_order="left").rows()

    def ask(self, kind: str, row: int, generator: np.random.Generator) -> Question | None:
        head, relation, tail = self.pictured[row]
        if kind == "swap":
            wrong = [(tail, relation, head)]
        elif kind == "tail":
            wrong = [(head, relation, other) for other in self.tails[relation]]
        else:
            wrong = [(head, other, tail) for other in self.into[tail]]
        right = self._say(head, relation, tail)
        for place in generator.permutation(len(wrong))[:20].tolist():
            caption = self._say(*wrong[place])
            if wrong[place] not in self.true and caption != right:
                image, box = self.picture[head]
                return Question((image,), (right, caption), kind, tuple(box) if box else None)
        return None

    def _say(self, head: int, relation: int, tail: int) -> str:
        return f"{self.labels[head]} {self.relations[relation]} {self.labels[tail]}"


def _lists(triples: pl.DataFrame, key: str, value: str) -> dict[int, list[int]]:
    grouped = triples.group_by(key).agg(pl.col(value).unique().sort())
    return dict(grouped.iter_rows())

"""Scenes as tensors: statements about them, false statements, captions and little graphs.

A *statement* is an edge of a scene graph with the attributes of its ends, seven columns: noun,
size and colour of the head, relation, and noun, size and colour of the tail. ``UNSAID`` stands
where an attribute is left out. Captions, graphs and negatives are all made of statements, a
whole batch at a time, so that a training step never walks through tables or strings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from kgclip.graph import KnowledgeGraph
from kgclip.nn.scene_graph import SceneGraphs
from kgclip.sources.openmoji_scenes import ATTRIBUTES, COLOURS, NOUNS, RELATIONS, SIZES, phrase

UNSAID = -1
HEAD, RELATION, TAIL = slice(0, 3), 3, slice(4, 7)
KINDS = ("reverse", "relation", "nouns", "colours", "sizes")
_SWAPPED = {"nouns": (0, 4), "sizes": (1, 5), "colours": (2, 6)}
_VALUES = {"noun": NOUNS, "size": tuple(SIZES), "colour": tuple(COLOURS)}
_NUM_RELATIONS = len(RELATIONS)


@dataclasses.dataclass(frozen=True)
class Scenes:
    """S scenes.

    Attributes:
        statements: Every directed edge of each scene; rows of ``UNSAID`` fill up. Long [S, E, 7].
        counts: Edges of each scene, at least 2; the first is that between the first two objects.
            Long [S].
        boxes: Of head and tail of each edge, x, y, width and height in pixels. Float
            [S, E, 2, 4].
        parts: Where each scene belongs: ``"train"``, ``"test-pairs"`` … Str [S].
        paths: Its picture. Length S.
    """

    statements: Tensor
    counts: Tensor
    boxes: Tensor
    parts: np.ndarray
    paths: list[str]

    def __len__(self) -> int:
        return len(self.statements)

    def rows(self, part: str) -> Tensor:
        """Scenes of a part: long [n]."""
        return torch.from_numpy(np.flatnonzero(self.parts == part))


def read_scenes(graph: KnowledgeGraph) -> Scenes:
    """Read scenes out of a graph of the source ``openmoji_scenes``.

    Args:
        graph: Entities have a scene, literals noun, size and colour; triples are the edges.
    """
    numbers = {name: number for number, name in enumerate(graph.relations["name"])}
    attributes = torch.full((graph.num_entities, 3), UNSAID)
    for column, name in enumerate(ATTRIBUTES):
        found = graph.literals.filter(pl.col("relation") == numbers[name])
        values = {value: i for i, value in enumerate(_VALUES[name])}
        ids = [values[value] for value in found["value"]]
        attributes[found["entity"].to_numpy().copy(), column] = torch.tensor(ids)
    triples = torch.from_numpy(graph.triples.select("head", "relation", "tail").to_numpy().copy())
    edges = torch.cat(
        [attributes[triples[:, 0]], triples[:, 1:2], attributes[triples[:, 2]]], dim=1
    )
    scenes = graph.entities.filter(pl.col("type") == "scene")["name"].to_list()
    row_of = {name: row for row, name in enumerate(scenes)}
    rows = [row_of[name] for name in graph.entities["scene"].gather(triples[:, 0].numpy())]
    owner = torch.tensor(rows)
    counts = torch.bincount(owner, minlength=len(scenes))
    starts = counts.cumsum(0) - counts
    statements = torch.full((len(scenes), int(counts.max()), 7), UNSAID)
    place = torch.arange(len(owner)) - starts[owner]
    statements[owner, place] = edges
    boxed = graph.images.filter(pl.col("box").is_not_null())
    box_of = torch.zeros(graph.num_entities, 4)
    box_of[boxed["entity"].to_numpy().copy()] = torch.tensor(boxed["box"].to_numpy()).float()
    boxes = torch.zeros(*statements.shape[:2], 2, 4)
    boxes[owner, place] = box_of[triples[:, [0, 2]]]
    pictures = {entity: row for row, entity in reversed(list(enumerate(graph.images["entity"])))}
    first = np.flatnonzero(graph.entities["type"].to_numpy() == "scene")
    return Scenes(
        statements,
        counts,
        boxes,
        np.array([name.partition("/")[0] for name in scenes]),
        [str(graph.image_path(pictures[int(entity)])) for entity in first],
    )


def without_attributes(statements: Tensor) -> Tensor:
    """The same with nouns and relation alone: long [..., 7] to long [..., 7]."""
    plain = statements.clone()
    plain[..., [1, 2, 5, 6]] = UNSAID
    return plain


def corrupt(statements: Tensor, kind: str, relations: Tensor | None = None) -> Tensor:
    """Say something else of the same things.

    Args:
        statements: Long [B, 7].
        kind: ``"reverse"`` (the ends change places), ``"relation"`` (another one),
            ``"nouns"``, ``"colours"`` or ``"sizes"`` (these alone change places).
        relations: For ``"relation"``, the new ones; the default is the inverse. Long [B].

    Returns:
        Long [B, 7]; equal to the statement where the swapped things are equal.
    """
    changed = statements.clone()
    if kind == "reverse":
        changed[:, HEAD], changed[:, TAIL] = statements[:, TAIL], statements[:, HEAD]
    elif kind == "relation":
        inverse = (statements[:, RELATION] + _NUM_RELATIONS // 2) % _NUM_RELATIONS
        changed[:, RELATION] = inverse if relations is None else relations
    else:
        a, b = _SWAPPED[kind]
        changed[:, a], changed[:, b] = statements[:, b], statements[:, a]
    return changed


def is_true(statements: Tensor, truths: Tensor) -> Tensor:
    """Whether each statement holds in its scene; what is unsaid is not asked.

    Args:
        statements: Long [B, 7].
        truths: Everything that holds, as :attr:`Scenes.statements`. Long [B, E, 7].

    Returns:
        Bool [B].
    """
    said = statements[:, None]
    matches = torch.eq(said, truths) | torch.eq(said, UNSAID)
    holds: Tensor = matches.all(dim=2).any(dim=1)
    return holds


def draw_negatives(
    statements: Tensor, truths: Tensor, count: int, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """False statements like the true ones, each of another kind.

    A swap of equal things is none, and what holds in the scene all the same is none.

    Args:
        statements: Long [B, 7].
        truths: Long [B, E, 7].
        count: How many a statement, K, at most the number of kinds.
        draws: Decides.

    Returns:
        Long [B, K, 7], and whether each is one. Bool [B, K].
    """
    shift = torch.randint(1, _NUM_RELATIONS, (len(statements),), generator=draws)
    other = (statements[:, RELATION] + shift) % _NUM_RELATIONS
    every = torch.stack([corrupt(statements, kind, other) for kind in KINDS], dim=1)
    false = torch.stack([~is_true(one, truths) for one in every.unbind(1)], dim=1)
    order = torch.rand(len(statements), len(KINDS), generator=draws) + (~false).float()
    chosen = order.argsort(dim=1)[:, :count]
    picked = every.gather(1, chosen[..., None].expand(-1, -1, every.shape[2]))
    return picked, false.gather(1, chosen)


class Wording:
    """From statements to captions and graphs, by tables of token ids.

    Args:
        tokenizer: From texts to token ids: start, pieces, end, zeros.

    Attributes:
        context_length: L of a caption.
    """

    def __init__(self, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self.context_length = tokenizer(["a"]).shape[1]
        self._start, self._end = (int(tokenizer(["a"])[0, i]) for i in (0, 2))
        self._phrases = self._pieces(tokenizer, [phrase(*words) for words in _things()])
        self._things = self._pieces(tokenizer, [" ".join(words) for words in _things()])
        self._relations = self._pieces(tokenizer, list(RELATIONS.values()))

    def _pieces(self, tokenizer: Callable[[list[str]], Tensor], texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(texts))[:, 1:]
        tokens = tokens.masked_fill(tokens == self._end, 0)
        return tokens[:, : int((tokens != 0).sum(dim=1).max())]

    def vocabulary(self) -> Tensor:
        """Every token that a caption or graph can hold, padding included: long [V]."""
        tables = (self._phrases, self._things, self._relations)
        ends = torch.tensor([0, self._start, self._end])
        found: Tensor = torch.unique(torch.cat([ends, *(table.flatten() for table in tables)]))
        return found

    def renumber(self, kept: Tensor) -> None:
        """Use the numbers of a shrunk vocabulary from here on.

        Args:
            kept: The tokens kept, ascending, 0 first. Long [V].
        """
        for name in ("_phrases", "_things", "_relations"):
            setattr(self, name, torch.searchsorted(kept, getattr(self, name).contiguous()))
        self._start, self._end = (
            int(torch.searchsorted(kept, token)) for token in (self._start, self._end)
        )

    def captions(self, statements: Tensor) -> Tensor:
        """Captions, as the tokenizer would make them of the words.

        Args:
            statements: Long [..., 7].

        Returns:
            Long [..., L].
        """
        flat = statements.reshape(-1, 7)
        head = self._phrases[_thing_row(flat[:, HEAD])]
        tail = self._phrases[_thing_row(flat[:, TAIL])]
        tokens = self._captions(torch.cat([head, self._relations[flat[:, RELATION]], tail], dim=1))
        return tokens.view(*statements.shape[:-1], self.context_length)

    def things(self, statements: Tensor) -> tuple[Tensor, Tensor]:
        """What head and tail of each statement are called, heads first.

        Args:
            statements: Long [B, 7].

        Returns:
            Captions, long [2B, L], and a number for each that equal ones share, long [2B].
        """
        rows = torch.cat([_thing_row(statements[:, part]) for part in (HEAD, TAIL)])
        return self._captions(self._phrases[rows]), rows

    def relations(self) -> Tensor:
        """The relations as captions: long [R, L]."""
        return self._captions(self._relations)

    def _captions(self, pieces: Tensor) -> Tensor:
        edge = pieces.new_zeros(len(pieces), 1)
        pieces = torch.cat([edge + self._start, pieces, edge + self._end], dim=1)
        order = (pieces == 0).long().argsort(dim=1, stable=True)  # padding goes to the end
        tokens = pieces.gather(1, order)
        return torch.nn.functional.pad(tokens, (0, self.context_length))[:, : self.context_length]

    def graphs(self, statements: Tensor) -> SceneGraphs:
        """Of each statement its graph: two nodes, the edge and its inverse.

        Args:
            statements: Long [..., 7]; graphs come in the order of the flattened statements.
        """
        flat = statements.reshape(-1, 7)
        ends = torch.stack([_thing_row(flat[:, HEAD]), _thing_row(flat[:, TAIL])], dim=1)
        heads = 2 * torch.arange(len(flat))
        relations = flat[:, RELATION]
        inverse = (relations + _NUM_RELATIONS // 2) % _NUM_RELATIONS
        return SceneGraphs(
            words=self._things[ends.flatten()],
            edge_index=torch.stack([torch.cat([heads, heads + 1]), torch.cat([heads + 1, heads])]),
            edge_type=torch.cat([relations, inverse]),
            relation_words=self._relations,
            graph_ids=torch.arange(len(flat)).repeat_interleave(2),
            num_graphs=len(flat),
        )


def say(statement: Tensor) -> str:
    """One statement in words: long [7] to text."""
    head, tail = (_words(statement[part].tolist()) for part in (HEAD, TAIL))
    return f"{phrase(*head)} {list(RELATIONS.values())[int(statement[RELATION])]} {phrase(*tail)}"


def _things() -> list[tuple[str, ...]]:
    """Every object: each noun without attributes, then with all of them."""
    rows: list[tuple[str, ...]] = []
    for noun in NOUNS:
        rows.append((noun,))
        rows += [(noun, size, colour) for size in SIZES for colour in COLOURS]
    return rows


def _thing_row(things: Tensor) -> Tensor:
    """Row in :func:`_things`: long [B, 3] to long [B]."""
    noun, size, colour = things.unbind(1)
    said = size * len(COLOURS) + colour + 1
    return noun * (1 + len(SIZES) * len(COLOURS)) + torch.where(size == UNSAID, 0, said)


def _words(thing: Sequence[int]) -> tuple[str, ...]:
    noun, size, colour = thing
    if size == UNSAID:
        return (NOUNS[noun],)
    return NOUNS[noun], tuple(SIZES)[size], tuple(COLOURS)[colour]

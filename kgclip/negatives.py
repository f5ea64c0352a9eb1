"""Negatives of triples: drawn at random, or mined from the graph so that they are hard.

Every kind is a way to propose one triple for each given one; what the training graph says is true
is rejected and drawn again by one loop. All statistics are computed when first asked for, take
O(triples) memory, and serve any number of batches.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

HEAD, RELATION, TAIL = range(3)
SIDES = ("tail", "head", "both", "bernoulli")
_ROWS = 512  # relations compared with all others at once


class NegativeSampler:
    """Draws negatives against one training graph, on the CPU.

    Args:
        triples: What is true: head, relation, tail. Long [K, 3]; duplicates do no harm.
        num_entities: Number N of entities.
        num_relations: Number R of relations. An inverse relation that stands in the triples is a
            relation like any other.
        entity_type: Type of each entity, -1 = unknown; a sibling then has the type of what it
            replaces, and relations are compared by the types that they join. Long [N].
        num_confusable: Nearest relations that count as confusable.
        symmetric_share: A relation is symmetric if at least this share of its triples is also
            there the other way round; in (0, 1].

    Raises:
        ValueError: If a shape, a kind of number or an id is wrong, or N·R·N exceeds 2⁶³.
    """

    def __init__(
        self,
        triples: Tensor,
        num_entities: int,
        num_relations: int,
        *,
        entity_type: Tensor | None = None,
        num_confusable: int = 8,
        symmetric_share: float = 0.5,
    ) -> None:
        if num_entities * num_relations * num_entities >= 2**63:
            raise ValueError(
                f"{num_entities} entities and {num_relations} relations do not fit a 64-bit key"
            )
        if entity_type is not None and entity_type.shape != (num_entities,):
            raise ValueError(
                f"entity_type: {list(entity_type.shape)} given, long [{num_entities}] expected"
            )
        self.num_entities, self.num_relations = num_entities, num_relations
        self.entity_type, self.num_confusable = entity_type, num_confusable
        self.symmetric_share = symmetric_share
        self._check(triples)
        self._known = torch.unique(self._keys(triples))
        rest = torch.div(self._known, num_entities, rounding_mode="floor")
        self.triples = torch.stack(
            [
                torch.div(rest, num_relations, rounding_mode="floor"),
                rest % num_relations,
                self._known % num_entities,
            ],
            dim=1,
        )

    def is_true(self, triples: Tensor) -> Tensor:
        """Whether the training graph has each triple. Long [n, 3] to bool [n]."""
        keys = self._keys(triples)
        if not len(self._known):
            return torch.zeros_like(keys, dtype=torch.bool)
        place = torch.searchsorted(self._known, keys).clamp(max=len(self._known) - 1)
        known: Tensor = self._known[place] == keys
        return known

    def sample(
        self,
        triples: Tensor,
        kind: str = "uniform",
        num_negatives: int = 1,
        *,
        side: str = "both",
        generator: torch.Generator | None = None,
        tries: int = 20,
    ) -> tuple[Tensor, Tensor]:
        """Draw negatives, each independently: one triple may get the same one twice.

        Args:
            triples: Long [T, 3].
            kind: One of :data:`NEGATIVES`. ``"uniform"``: any entity; ``"typed"``: an entity that
                the training graph has on that side of the relation; ``"sibling"``: an entity that
                shares a neighbour, by the same relation, with the one it replaces; ``"swap"``:
                head and tail exchanged where the relation is not symmetric; ``"relation"``: a
                relation that joins similar entities.
            num_negatives: Number n of negatives a triple.
            side: What ``"uniform"``, ``"typed"`` and ``"sibling"`` replace: ``"tail"``,
                ``"head"``, ``"both"`` (either with probability ½) or ``"bernoulli"`` (the head of
                a 1-N relation more often, so that fewer negatives are true).
            generator: Source of randomness, on the CPU.
            tries: Draws before a negative counts as not there.

        Returns:
            Negatives, long [T, n, 3], and whether each was found, bool [T, n]. None that was
            found is in the training graph; in place of one that was not, the given triple stands.

        Raises:
            ValueError: If a word is unknown or the triples are out of range.

        Reference:
            Bernoulli: Wang et al., AAAI 2014 (TransH). Typed: Krompaß et al., arXiv 1508.02593.
        """
        for name, value, known in (("kind", kind, tuple(NEGATIVES)), ("side", side, SIDES)):
            if value not in known:
                raise ValueError(f"{name}: {value!r} given, one of {known} expected")
        self._check(triples)
        given = triples.repeat_interleave(num_negatives, dim=0)
        negatives, found = given.clone(), torch.zeros(len(given), dtype=torch.bool)
        rows = torch.arange(len(given))
        for _ in range(tries):
            proposed = NEGATIVES[kind](self, given[rows], side, generator)
            good = (proposed != given[rows]).any(dim=1) & ~self.is_true(proposed)
            negatives[rows[good]] = proposed[good]
            found[rows[good]] = True
            rows = rows[~good]
            if not len(rows):
                break
        shape = (len(triples), num_negatives)
        return negatives.view(*shape, 3), found.view(shape)

    def replaced_columns(
        self, relations: Tensor, side: str, generator: torch.Generator | None = None
    ) -> Tensor:
        """Column that a negative of each triple replaces, 0 or 2. Long [n]."""
        if side in ("tail", "head"):
            return torch.full_like(relations, TAIL if side == "tail" else HEAD)
        draw = torch.rand(len(relations), generator=generator)
        share = self.head_share[relations] if side == "bernoulli" else draw.new_tensor(0.5)
        return torch.where(draw < share, HEAD, TAIL)

    @functools.cached_property
    def head_share(self) -> Tensor:
        """Share of corrupted heads, tails a head / (tails a head + heads a tail). Float [R]."""
        pairs = [
            torch.unique(self.triples[:, [RELATION, end]], dim=0)[:, 0] for end in (HEAD, TAIL)
        ]
        heads, tails = (torch.bincount(part, minlength=self.num_relations) for part in pairs)
        # tph = triples / heads and hpt = triples / tails.
        return torch.where(heads + tails > 0, tails / (heads + tails).clamp(min=1), 0.5)

    @functools.cached_property
    def is_symmetric(self) -> Tensor:
        """Whether each relation counts as symmetric. Bool [R]."""
        back = self.is_true(self.triples.flip(1)).float()
        relation = self.triples[:, RELATION]
        total = torch.bincount(relation, minlength=self.num_relations)
        share = torch.bincount(relation, back, minlength=self.num_relations) / total.clamp(min=1)
        return share >= self.symmetric_share

    @functools.cached_property
    def seen_on(self) -> Groups:
        """Entities on either side of each relation: group 2r = heads, 2r + 1 = tails."""
        head, relation, tail = self.triples.T
        return group_members(
            torch.cat([2 * relation, 2 * relation + 1]),
            torch.cat([head, tail]),
            2 * self.num_relations,
        )

    @functools.cached_property
    def facts(self) -> tuple[Groups, Groups]:
        """Facts of each entity and entities of each fact; a fact is (relation, side, other end)."""
        head, relation, tail = self.triples.T
        fact = torch.cat([2 * relation, 2 * relation + 1]) * self.num_entities
        _, fact = torch.unique(fact + torch.cat([tail, head]), return_inverse=True)
        entity = torch.cat([head, tail])
        num_facts = int(fact.max()) + 1 if len(fact) else 0
        return group_members(entity, fact, self.num_entities), group_members(
            fact, entity, num_facts
        )

    @functools.cached_property
    def confusable(self) -> Groups:
        """The nearest relations of each, by the cosines of what stands on either side."""
        head, relation, tail = self.triples.numpy().T
        kinds, count = np.arange(self.num_entities), self.num_entities
        if self.entity_type is not None:
            kinds = self.entity_type.numpy() + 1
            count = int(kinds.max(initial=0)) + 1
        heads, tails = (
            _unit_rows(relation, kinds[end], (self.num_relations, count)) for end in (head, tail)
        )
        owners, found = [], []
        for first in range(0, self.num_relations, _ROWS):
            part = slice(first, first + _ROWS)
            near = (heads[part] @ heads.T).multiply(tails[part] @ tails.T).tocsr()
            for row in range(near.shape[0]):
                entries = slice(near.indptr[row], near.indptr[row + 1])
                others, closeness = near.indices[entries], near.data[entries]
                closeness = closeness[others != first + row]
                others = others[others != first + row]
                best = others[np.argsort(-closeness, kind="stable")[: self.num_confusable]]
                owners.append(np.full(len(best), first + row))
                found.append(best)
        empty = [np.zeros(0, dtype=np.int64)]
        owner, other = (
            torch.from_numpy(np.concatenate(empty + part)).long() for part in (owners, found)
        )
        return group_members(owner, other, self.num_relations)

    def _keys(self, triples: Tensor) -> Tensor:
        head, relation, tail = triples.T
        keys: Tensor = (head * self.num_relations + relation) * self.num_entities + tail
        return keys

    def _check(self, triples: Tensor) -> None:
        if triples.dtype != torch.long or triples.ndim != 2 or triples.shape[1] != 3:
            raise ValueError(
                f"triples: {triples.dtype} {list(triples.shape)} given, long [T, 3] expected"
            )
        for name, ids, count in (
            ("entity", triples[:, [HEAD, TAIL]], self.num_entities),
            ("relation", triples[:, RELATION], self.num_relations),
        ):
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < count:
                raise ValueError(
                    f"triples: {name} ids {int(ids.min())} to {int(ids.max())} given, "
                    f"[0, {count}) expected"
                )


@dataclasses.dataclass(frozen=True)
class Groups:
    """Members of numbered groups.

    Attributes:
        start: Where each group begins. Long [groups + 1].
        members: Long [m], by group.
    """

    start: Tensor
    members: Tensor

    def draw(self, groups: Tensor, otherwise: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw a member of each group, ``otherwise`` where it has none. Long [n]."""
        if not len(self.members):
            return otherwise
        size = self.start[groups + 1] - self.start[groups]
        # Doubles: a float has too few digits for large groups.
        draw = torch.rand(len(groups), generator=generator, dtype=torch.double)
        place = (self.start[groups] + (draw * size).long()).clamp(max=len(self.members) - 1)
        return torch.where(size > 0, self.members[place], otherwise)


def group_members(owner: Tensor, member: Tensor, num_groups: int) -> Groups:
    """Group distinct members by their owner.

    Args:
        owner: Long [m], each in [0, ``num_groups``).
        member: Long [m], at least 0.
        num_groups: Number of groups, empty ones included.
    """
    width = int(member.max()) + 1 if len(member) else 1
    pairs = torch.unique(owner * width + member)
    start = torch.zeros(num_groups + 1, dtype=torch.long)
    owners = torch.div(pairs, width, rounding_mode="floor")
    start[1:] = torch.bincount(owners, minlength=num_groups).cumsum(0)
    return Groups(start, pairs % width)


def _unit_rows(
    row: np.ndarray, column: np.ndarray, shape: tuple[int, int]
) -> scipy.sparse.csr_array:
    counts = scipy.sparse.csr_array((np.ones(len(row)), (row, column)), shape=shape)
    length = np.sqrt(counts.multiply(counts).sum(axis=1))
    return scipy.sparse.diags_array(1 / np.where(length > 0, length, 1)) @ counts


# From sampler, triples [n, 3], side and generator to proposals [n, 3]; the triple itself where
# there is nothing to propose, for it is always rejected.
Proposal = Callable[[NegativeSampler, Tensor, str, torch.Generator | None], Tensor]


def _put(triples: Tensor, column: Tensor, entity: Tensor) -> Tensor:
    return triples.scatter(1, column[:, None], entity[:, None])


def _propose_uniform(
    sampler: NegativeSampler, triples: Tensor, side: str, generator: torch.Generator | None
) -> Tensor:
    column = sampler.replaced_columns(triples[:, RELATION], side, generator)
    drawn = torch.randint(sampler.num_entities, (len(triples),), generator=generator)
    return _put(triples, column, drawn)


def _propose_typed(
    sampler: NegativeSampler, triples: Tensor, side: str, generator: torch.Generator | None
) -> Tensor:
    column = sampler.replaced_columns(triples[:, RELATION], side, generator)
    group = 2 * triples[:, RELATION] + (column == TAIL)
    replaced = triples.gather(1, column[:, None])[:, 0]
    return _put(triples, column, sampler.seen_on.draw(group, replaced, generator))


def _propose_sibling(
    sampler: NegativeSampler, triples: Tensor, side: str, generator: torch.Generator | None
) -> Tensor:
    column = sampler.replaced_columns(triples[:, RELATION], side, generator)
    replaced = triples.gather(1, column[:, None])[:, 0]
    facts_of, entities_of = sampler.facts
    fact = facts_of.draw(replaced, torch.full_like(replaced, -1), generator)
    drawn = entities_of.draw(fact.clamp(min=0), replaced, generator)
    drawn = torch.where(fact < 0, replaced, drawn)
    if sampler.entity_type is not None:
        same = sampler.entity_type[drawn] == sampler.entity_type[replaced]
        drawn = torch.where(same, drawn, replaced)
    return _put(triples, column, drawn)


def _propose_swap(
    sampler: NegativeSampler, triples: Tensor, side: str, generator: torch.Generator | None
) -> Tensor:
    symmetric = sampler.is_symmetric[triples[:, RELATION]]
    return torch.where(symmetric[:, None], triples, triples.flip(1))


def _propose_relation(
    sampler: NegativeSampler, triples: Tensor, side: str, generator: torch.Generator | None
) -> Tensor:
    relation = triples[:, RELATION]
    drawn = sampler.confusable.draw(relation, relation, generator)
    return torch.stack([triples[:, HEAD], drawn, triples[:, TAIL]], dim=1)


NEGATIVES: dict[str, Proposal] = {
    "uniform": _propose_uniform,
    "typed": _propose_typed,
    "sibling": _propose_sibling,
    "swap": _propose_swap,
    "relation": _propose_relation,
}

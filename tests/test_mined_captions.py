"""Captions say what is true of the picture, their corrupted copies what is not."""

import pytest
import torch

from kgclip.mined_captions import MinedCaptions
from kgclip.negatives import NegativeSampler

LABELS = ["Kenya", "Chad", "Nairobi", "Africa", "Mali", "Mali"]
RELATIONS = ["capital", "part of"]
TRIPLES = torch.tensor([[0, 0, 2], [0, 1, 3], [1, 1, 3], [4, 1, 3], [2, 1, 0]])


def tokenizer(texts):
    """Each text is one number."""
    return torch.tensor([[WORDS.setdefault(text, len(WORDS))] for text in texts])


WORDS: dict[str, int] = {}


def said(ids):
    back = {number: text for text, number in WORDS.items()}
    return [back[int(number)] for number in ids.flatten()]


def build(**options):
    known = NegativeSampler(TRIPLES, len(LABELS), len(RELATIONS))
    return MinedCaptions(LABELS, RELATIONS, known, tokenizer, **options)


def draw(maker, entities, seed=0):
    return maker(torch.tensor(entities), torch.Generator().manual_seed(seed))


TRUE = {f"{LABELS[h]} {RELATIONS[r]} {LABELS[t]}" for h, r, t in TRIPLES.tolist()}


def test_captions_are_true_and_negatives_are_not():
    maker, captions = build(share=1.0, num_negatives=6), set()
    for seed in range(30):
        text, wrong, mask = draw(maker, [0, 1, 2, 3], seed)
        words = said(text)
        assert words[3] == "Africa", "it heads no triple"
        assert not mask[3].any()
        assert mask[:3].any(dim=1).all()
        assert set(words[:3]) <= TRUE
        assert words[0].startswith("Kenya")
        captions |= set(words)
        assert not set(said(wrong[mask])) & TRUE
    assert captions == TRUE - {"Mali part of Africa"} | {"Africa"}


def test_kinds_are_taken_in_turn():
    extra = torch.cat([TRIPLES, torch.tensor([[4, 0, 3]])])  # now the relations join the same
    known = NegativeSampler(extra, len(LABELS), len(RELATIONS))
    maker = MinedCaptions(
        LABELS, RELATIONS, known, tokenizer, share=1.0, kinds=("swap", "relation")
    )
    _, wrong, mask = draw(maker, [1, 1])
    negatives = [said(row) for row in wrong]
    assert negatives[0] == ["Africa part of Chad", "Chad capital Africa", "Africa part of Chad"]
    assert mask.all()


def test_a_negative_in_the_same_words_does_not_count():
    """Entity 5 has the name of entity 4, but not its triple."""
    maker = build(share=1.0, kinds=("uniform",), num_negatives=40)
    _, wrong, mask = draw(maker, [4])
    assert "Mali part of Africa" not in said(wrong[mask])
    assert "Mali part of Africa" in said(wrong[~mask])


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_the_share_of_triples(share, low, high):
    text, _, mask = draw(build(share=share), [0] * 200)
    told = sum(caption != "Kenya" for caption in said(text))
    assert low <= told <= high
    assert (mask.any(dim=1).sum() > 0) == (share > 0)


def test_no_triples_and_no_pictures():
    known = NegativeSampler(TRIPLES[:0], len(LABELS), len(RELATIONS))
    text, wrong, mask = draw(MinedCaptions(LABELS, RELATIONS, known, tokenizer), [0, 3])
    assert said(text) == ["Kenya", "Africa"]
    assert wrong.shape == (2, 3, 1)
    assert not mask.any()


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="at least one kind"):
        build(kinds=())
    with pytest.raises(ValueError, match="share 2"):
        build(share=2)

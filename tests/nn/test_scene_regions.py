import dataclasses

import pytest
import torch

from kgclip.nn.clip import create_model_and_transforms
from kgclip.nn.losses import RegionLoss
from kgclip.nn.output import KnowledgeOutput, Targets
from kgclip.nn.scene_graph import SceneCLIP
from kgclip.nn.scene_regions import SceneRegions, cell_shares
from kgclip.nn.triples import TripleEncoder, TripleEncoderOptions


def test_shares_of_a_box_are_its_pixels_in_each_cell():
    draws = torch.Generator().manual_seed(0)
    size = torch.randint(1, 60, (20, 2), generator=draws)
    start = (torch.rand(20, 2, generator=draws) * (129 - size)).long()
    shares = cell_shares(torch.cat([start, size], dim=1).float(), 128, 4)
    for (x, y), (width, height), found in zip(start, size, shares, strict=True):
        pixels = torch.zeros(128, 128)
        pixels[y : y + height, x : x + width] = 1
        counted = pixels.view(4, 32, 4, 32).sum(dim=(1, 3)).flatten()
        assert torch.allclose(found, counted / counted.sum())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    clip, _, _ = create_model_and_transforms("kgclip-grid")
    options = TripleEncoderOptions(width=32, num_layers=1, num_heads=2, max_tokens=None)
    return SceneCLIP(clip, None, TripleEncoder(128, 128, 128, options)).eval()


@pytest.fixture
def regions():
    boxes = torch.tensor([[[0.0, 0, 128, 128], [0, 0, 32, 32]], [[32, 0, 32, 32], [5, 60, 40, 40]]])
    text = torch.zeros(4, 16, dtype=torch.long)
    text[:, :3] = torch.tensor([[49406, 320, 49407], [49406, 321, 49407]]).repeat(2, 1)
    relation_text = text[:3].clone()
    relation_text[:, 1] = torch.tensor([500, 501, 502])
    return SceneRegions(
        cells=cell_shares(boxes, 128, 4).transpose(0, 1).flatten(0, 1),
        text=text,
        image_mask=torch.tensor([True, False, False, True]),
        relation=torch.tensor([0, 2]),
        relation_text=relation_text,
    )


def run(model, regions):
    torch.manual_seed(1)
    grid = torch.rand(2, 112, 8, 8)
    text = torch.zeros(2, 16, dtype=torch.long)
    text[:, :2] = torch.tensor([49406, 49407])
    return grid, model(grid, text, regions=regions)


def test_a_region_is_the_mean_of_the_tokens_under_its_box(model, regions):
    grid, output = run(model, regions)
    visual = model.clip.visual
    with torch.no_grad():
        cells = visual.trunk.encode_grid(grid)[:, 1:]
        whole, corner = (visual.head(visual.trunk.head(x)) for x in (cells[0].mean(0), cells[0, 0]))
    # Rows: head of the first picture, head of the second, then their tails.
    for row, expected in ((0, whole), (2, corner)):
        unit = expected / expected.norm()
        assert torch.allclose(output.region_features[row], unit, atol=1e-5)
    with torch.no_grad():
        plain = model(grid, torch.zeros(2, 16, dtype=torch.long))
    assert torch.allclose(output.image_features, plain.image_features, atol=1e-6)
    assert output.relation_logits.shape == (2, 3)
    assert output.entity_features.shape == output.region_text_features.shape == (4, 128)


def test_what_is_read_as_a_region_is_not_read_as_its_text(model, regions):
    with torch.no_grad():
        _, before = run(model, regions)
        changed = regions.text.clone()
        changed[0, 1] = 999  # the first head is read as its region
        _, after = run(model, dataclasses.replace(regions, text=changed))
        assert torch.allclose(before.entity_features, after.entity_features, atol=1e-6)
        changed[1, 1] = 999  # the second is read as its text
        _, after = run(model, dataclasses.replace(regions, text=changed))
        assert not torch.allclose(before.entity_features[1], after.entity_features[1], atol=1e-4)


def test_both_towers_learn_from_triples(model, regions):
    _, output = run(model, regions)
    (output.head_query.sum() + output.relation_logits.sum()).backward()
    assert model.clip.token_embedding.weight.grad.abs().sum() > 0
    assert model.clip.visual.trunk.positions.grad.abs().sum() > 0


def test_regions_need_a_triple_encoder(model, regions):
    with pytest.raises(ValueError, match="no triple_encoder; pass one"):
        run(SceneCLIP(model.clip), regions)


def test_regions_of_the_same_name_are_no_negatives_of_each_other():
    features = torch.eye(3)
    output = KnowledgeOutput(
        region_features=features, region_text_features=features, logit_scale=torch.tensor(5.0)
    )
    apart = RegionLoss()(output, Targets(region_ids=torch.arange(3)))
    expected = -torch.log_softmax(5.0 * features, dim=1).diagonal().mean()
    assert torch.allclose(apart, expected)
    same = RegionLoss()(output, Targets(region_ids=torch.zeros(3, dtype=torch.long)))
    assert same == 0

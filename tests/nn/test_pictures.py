"""Pictures are cut to their box, decoded ahead, and named when they cannot be read."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from kgclip.nn.pictures import DecodedPictures, Picture, read_picture
from kgclip.tables import GraphError


@pytest.fixture
def file(tmp_path):
    picture = Image.radial_gradient("L").resize((40, 30)).convert("RGB")
    picture.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_box_is_cut_out_and_to_the_picture(file):
    whole = read_picture(Picture(file))
    assert read_picture(Picture(file, (5, 6, 10, 12))) == whole.crop((5, 6, 15, 18))
    assert read_picture(Picture(file, (-3, 20, 99, 99))) == whole.crop((0, 20, 40, 30))


@pytest.mark.parametrize("num_workers", [0, 3])
def test_rows_are_the_pictures_in_any_order(file, num_workers):
    pictures = [Picture(file, (x, 0, 8, 8)) for x in range(20)]
    decoded = DecodedPictures(pictures, to_tensor, num_workers)
    expected = torch.stack([to_tensor(read_picture(picture)) for picture in pictures])
    decoded.prefetch(torch.tensor([3, 4, 5]))
    rows = torch.tensor([5, 3, 5, 19, 0])
    assert torch.equal(decoded[rows], expected[rows])
    assert torch.equal(decoded[rows], expected[rows])
    assert torch.equal(decoded[:], expected)
    assert decoded[rows[:0]].shape == (0, 3, 8, 8)
    assert len(decoded) == 20


def test_whose_picture_cannot_be_read_is_said(file, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(file.read_bytes()[:60])
    for path in (tmp_path / "none.png", tmp_path / "broken.jpg", cut):
        for decoded in (read_picture, lambda one: DecodedPictures([one], to_tensor)[:]):
            with pytest.raises(GraphError, match=rf"{path.name}: picture of country:KE: not a"):
                decoded(Picture(path, entity="country:KE"))
    with pytest.raises(GraphError, match=r"a\.png: picture of dog: the box .* of its 40 x 30"):
        read_picture(Picture(file, (50, 0, 5, 5), "dog"))

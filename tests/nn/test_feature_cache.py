import multiprocessing
import os
import sys
from pathlib import Path

import pytest
import torch

from kgclip.nn import feature_cache
from kgclip.nn.feature_cache import KEY_BYTES, CachedFeatures, FeatureCache


def _keys(*numbers):
    return [bytes([number]) * KEY_BYTES for number in numbers]


class Squares:
    """Computes a row of two squares for each key, and remembers for which."""

    def __init__(self, keys):
        self.keys, self.asked = keys, []

    def __call__(self, places):
        self.asked.append([self.keys[place][0] for place in places])
        values = [[float(self.keys[p][0]) ** 2] * 2 for p in places]
        return torch.tensor(values).view(len(places), 2)


def _rows(cache, *numbers, batch_size=2, order=None):
    keys = _keys(*numbers)
    encode = Squares(keys)
    return cache.rows(keys, encode, batch_size, order), encode.asked


@pytest.mark.parametrize("on_disk", [True, False])
def test_each_key_is_computed_once_and_found_in_any_order(tmp_path, on_disk):
    cache = FeatureCache(tmp_path if on_disk else None)
    found, asked = _rows(cache, 5, 3, 5, 9, 3, 4, order=[5, 4, 3, 2, 1, 0])
    assert asked == [[4, 3], [9, 5]]
    assert found[:][:, 0].tolist() == [25, 9, 25, 81, 9, 16]
    found, asked = _rows(FeatureCache(tmp_path) if on_disk else cache, 9, 7, 5)
    assert asked == [[7]]
    assert found[:][:, 1].tolist() == [81, 49, 25]


@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([4, 0, 0, 3]),
        torch.tensor([], dtype=torch.long),
        torch.tensor([True, False, True, True, False]),
        torch.tensor([-1, -5]),
        slice(None),
        slice(1, 4),
        slice(None, None, 2),
    ],
)
def test_rows_are_indexed_like_a_tensor(rows):
    matrix = torch.randn(7, 3, 2)
    places = torch.tensor([6, 2, 0, 5, 3])
    cached = CachedFeatures(list(torch.split(matrix, 3)), places)
    assert torch.equal(cached[rows], matrix[places][rows])
    assert cached.shape == (5, 3, 2)
    assert len(cached) == 5


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux lists what is mapped")
def test_shards_are_mapped_and_not_read(tmp_path):
    found, _ = _rows(FeatureCache(tmp_path), 1, 2, 3)
    (file,) = tmp_path.iterdir()
    assert str(file) in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert found[:][:, 0].tolist() == [1, 4, 9]


def _die_in_the_third_shard(folder, at_rename):
    feature_cache._SHARD_SECONDS = -1.0  # a shard a batch
    keys = _keys(1, 2, 3, 4, 5)
    encode = Squares(keys)

    def die(*_):
        os._exit(9)

    def encode_or_die(places):
        if len(encode.asked) == 2:
            if not at_rename:
                die()
            os.replace = die
        return encode(places)

    FeatureCache(folder).rows(keys, encode_or_die, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("at_rename", [True, False])
def test_a_killed_run_is_continued(tmp_path, at_rename):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_die_in_the_third_shard, args=(tmp_path, at_rename))
    process.start()
    process.join()
    assert process.exitcode == 9
    found, asked = _rows(FeatureCache(tmp_path), 1, 2, 3, 4, 5, batch_size=5)
    assert asked == [[3, 4, 5]]
    assert found[:][:, 0].tolist() == [1, 4, 9, 16, 25]
    found, asked = _rows(FeatureCache(tmp_path), 5, 1)
    assert asked == []
    assert found[:][:, 0].tolist() == [25, 1]


def test_many_rows_are_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "_SHARD_BYTES", 4 * 2 * 2 * 2)  # two batches of two rows
    found, _ = _rows(FeatureCache(tmp_path), *range(9))
    assert len(list(tmp_path.iterdir())) == 3
    assert found[:][:, 0].tolist() == [float(n * n) for n in range(9)]


def test_a_batch_has_rows():
    with pytest.raises(ValueError, match="batch_size"):
        _rows(FeatureCache(None), 1, batch_size=0)

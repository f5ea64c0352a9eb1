"""Packed files read as plain ones; damage and bombs are refused."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from kgclip.sources import read_graph
from kgclip.sources.compression import COMPRESSIONS, data_suffix, open_binary, origin_of
from kgclip.tables import GraphError

PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
TEXT = b"".join(b"a%d\tr\tb%d\n" % (n, n * n) for n in range(30_000))


def test_every_compression_is_tested():
    assert tuple(PACK) == COMPRESSIONS


@pytest.mark.parametrize("suffix", PACK)
class TestEveryCompression:
    def test_reads_what_was_packed(self, suffix, tmp_path):
        file = tmp_path / f"a.tsv{suffix}"
        file.write_bytes(PACK[suffix](TEXT[:1000]) + PACK[suffix](TEXT[1000:]))  # two members
        with open_binary(file) as stream:
            assert stream.read() == TEXT
        with open_binary(file) as stream:
            assert b"".join(stream) == TEXT
        assert read_graph(file).num_triples == 30_000

    @pytest.mark.parametrize("kept", [0.5, 0.99])
    def test_a_file_cut_off_is_no_shorter_file(self, suffix, kept, tmp_path):
        packed = PACK[suffix](TEXT)
        file = tmp_path / f"a.tsv{suffix}"
        file.write_bytes(packed[: int(kept * len(packed))])
        with pytest.raises(GraphError, match=r"damaged or cut off .*fetch the file again"):
            read_graph(file)

    def test_garbage_is_refused(self, suffix, tmp_path):
        file = tmp_path / f"a.tsv{suffix}"
        file.write_bytes(b"not packed at all, though the suffix says so")
        with pytest.raises(GraphError, match="damaged or cut off"):
            read_graph(file)

    def test_bombs_are_refused_unless_meant(self, suffix, tmp_path, monkeypatch):
        monkeypatch.setattr("kgclip.sources.compression.UNSUSPICIOUS_BYTES", 1000)
        file = tmp_path / f"bomb.tsv{suffix}"
        file.write_bytes(PACK[suffix](b"\n" * 3_000_000))
        with pytest.raises(GraphError, match="set KGCLIP_MAX_EXPANSION"), open_binary(file) as s:
            s.read()
        monkeypatch.setenv("KGCLIP_MAX_EXPANSION", "1e6")
        with open_binary(file) as stream:
            assert len(stream.read()) == 3_000_000


def test_suffix_of_what_is_inside():
    assert data_suffix(Path("a.b.NT.gz")) == ".nt"
    assert data_suffix(Path("a.zst")) == data_suffix(Path("a")) == ""


def test_unreadable_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(GraphError, match="no such file"), open_binary(tmp_path / "a.nt"):
        pass
    with pytest.raises(GraphError, match="a folder, a file expected"), open_binary(tmp_path):
        pass
    with pytest.raises(GraphError, match="a readable file expected"):
        origin_of(tmp_path / "a.nt")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x"))
    monkeypatch.setenv("KGCLIP_MAX_EXPANSION", "lots")
    with (
        pytest.raises(GraphError, match="'lots': a number expected"),
        open_binary(tmp_path / "a.gz"),
    ):
        pass

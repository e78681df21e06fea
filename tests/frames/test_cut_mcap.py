"""MCAP files that were not closed are read up to where they break off, and it is said."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from ff3r_model.frames.cut_mcap import CutMcap, is_closed
from ff3r_model.frames.open_source import open_source
from ff3r_model.frames.source import SourceError
from tests.frames.test_sources import SIZE, raw, write_bag

COUNT = 300
"""Images, in chunks of some 114."""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (COUNT, *SIZE, 3), np.uint8)
    messages = [raw(index, data=image) for index, image in enumerate(noise)]
    return write_bag(tmp_path_factory.mktemp("cut") / "bag", {"/cam/image": messages}) / "bag.mcap"


@pytest.mark.parametrize("lost_to_zeros", [False, True])
@pytest.mark.parametrize(("share", "whole_chunks"), [(0.5, 1), (0.8, 2), (0.9999, 3)])
def test_whole_chunks_are_read(
    tmp_path: Path,
    closed: Path,
    share: float,
    whole_chunks: int,
    lost_to_zeros: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a power cut a file system may give the file its length, and zeros in it."""
    data, path = closed.read_bytes(), tmp_path / "cut.mcap"
    kept = int(len(data) * share)
    path.write_bytes(data[:kept] + bytes(lost_to_zeros * (len(data) - kept)))
    assert is_closed(closed) and not is_closed(path)
    with caplog.at_level(logging.WARNING):
        frames = list(open_source(path))
    assert caplog.text.count("the recording was not closed: `mcap recover") == 1 and "what is there is" in caplog.text
    assert min(110 * whole_chunks, COUNT) <= len(frames) <= min(118 * whole_chunks, COUNT)
    assert [frame.stamp for frame in frames] == [10**9 + index * 10**8 for index in range(len(frames))]


def test_a_recording_without_one_whole_chunk_is_refused(tmp_path: Path, closed: Path) -> None:
    (tmp_path / "cut.mcap").write_bytes(closed.read_bytes()[:5000])
    with pytest.raises(SourceError, match=r"the recording was not closed: `mcap recover \S+cut\.mcap"):
        open_source(tmp_path / "cut.mcap")


def test_the_end_that_is_added_reads_like_a_file(tmp_path: Path, closed: Path) -> None:
    """Every way of reading across the seam gives the same bytes."""
    (tmp_path / "cut.mcap").write_bytes(closed.read_bytes()[:-100])
    cut = CutMcap(tmp_path / "cut.mcap")
    whole = cut.open().read()
    assert whole[: cut.whole] == closed.read_bytes()[: cut.whole] and whole.endswith(b"\x89MCAP0\r\n")
    with cut.open() as file:
        assert file.seek(0, os.SEEK_END) == len(whole)
        for offset, size in ((-37, 37), (-60, 30), (-len(whole), 10), (-45, -1)):
            assert file.seek(offset, io.SEEK_END) == len(whole) + offset
            assert file.read(size) == whole[offset:][: None if size < 0 else size]

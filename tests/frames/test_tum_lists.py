"""Lists of TUM RGB-D are read in order of time; lines that cannot be used are left out, by number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ff3r_model.frames.tum_lists import RgbdError, read_files, read_poses

POSE = "1 2 3 0 0 0.6 0.8"


def test_files_in_order_of_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rgb.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# color images\r\n2.5 rgb/b c.png\r\n\r\n1.5,rgb/a.png\r\nword\r\nnan x.png\r\n1.5 z.png\r\n"
    )
    rows = read_files(path)
    assert [(row.stamp, row.value) for row in rows] == [(1.5, tmp_path / "rgb/a.png"), (2.5, tmp_path / "rgb/b c.png")]
    assert "rgb.txt: 2 lines are not a time and a file: line 5 ('word'), line 6 ('nan x.png'); left out" in caplog.text


def test_poses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"3.0 {POSE}", "1.0," + POSE.replace(" ", ","), "2.0 nan 2 3 0 0 0 1", "2.1 1 2 3 0 0 0 0", "2.2 1 2 3"]
    (tmp_path / "groundtruth.txt").write_text("\n".join(lines))
    rows = read_poses(tmp_path / "groundtruth.txt")
    assert [(row.stamp, row.number) for row in rows] == [(1.0, 1), (3.0, 0)]
    expected = torch.tensor([[0.28, -0.96, 0.0, 1], [0.96, 0.28, 0.0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    torch.testing.assert_close(rows[0].value, expected, atol=1e-6, rtol=0)
    assert "3 lines are not eight numbers" in caplog.text and "line 3" in caplog.text


def test_lists_without_a_usable_line(tmp_path: Path) -> None:
    (tmp_path / "groundtruth.txt").write_text("# nothing\none two\n")
    with pytest.raises(RgbdError, match=r"groundtruth\.txt: 1 lines are not eight numbers.*line 2 \('one two'\)"):
        read_poses(tmp_path / "groundtruth.txt")
    with pytest.raises(RgbdError, match=r"depth\.txt cannot be read: No such file"):
        read_files(tmp_path / "depth.txt")


@pytest.mark.fuzz
@given(st.lists(st.text(st.sampled_from("01.5e-+ ,;#naif\tx\x00é\r"), max_size=30) | st.just(f"5 {POSE}"), max_size=6))
def test_any_lines(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines))
    for read in (read_files, read_poses):
        try:
            rows = read(path)
        except RgbdError as error:
            assert str(path) in str(error)
            continue
        assert all(0 <= row.stamp < 9e9 for row in rows)
        assert [row.stamp for row in rows] == sorted({row.stamp for row in rows})
    if f"5 {POSE}" in lines:
        assert any(row.stamp == 5 for row in read_poses(path))

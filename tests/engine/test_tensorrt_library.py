"""Looking for TensorRT: missing, broken, too old, too new, and RTX in its place."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from ff3r_model.engine.tensorrt.build import Profile, build_plan
from ff3r_model.engine.tensorrt.library import TensorRTError, load_library, numbers
from tests.support import fake_tensorrt


def test_version_numbers() -> None:
    assert numbers("10.3.0.30") == (10, 3, 0, 30) and numbers("11.0.0rc1")[:2] == (11, 0)
    assert numbers("10.14.1.48") > (10, 3)


def block(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_no_tensorrt_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, "tensorrt", "tensorrt_rtx")
    with pytest.raises(TensorRTError, match=r"TensorRT is not installed .*TensorRT-RTX is not installed .*engines\.md"):
        load_library()


def test_rtx_serves_where_tensorrt_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, "tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt.module("tensorrt_rtx", "1.7.1.116"))
    library = load_library()
    assert str(library) == "TensorRT-RTX 1.7.1.116" and library.fuses_attention


@pytest.mark.parametrize(
    ("version", "said"),
    [("10.2.0.19", "TensorRT 10.2.0.19 is too old: 10.3 or later is needed"), ("", "an empty shell")],
)
def test_versions_that_do_not_serve(monkeypatch: pytest.MonkeyPatch, version: str, said: str) -> None:
    block(monkeypatch, "tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module(version=version))
    with pytest.raises(TensorRTError, match=said):
        load_library()


@pytest.mark.parametrize(("version", "fused"), [("10.3.0.30", False), ("10.14.0", True), ("11.0.0.12", True)])
def test_attention_by_version(monkeypatch: pytest.MonkeyPatch, version: str, fused: bool) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module(version=version))
    assert load_library().fuses_attention is fused


def test_an_old_parser_is_told_to_take_decomposed_attention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module(version="10.3.0.30"))
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(TensorRTError, match="--attention decomposed"):
        build_plan(load_library(), tmp_path / "bad.onnx", [Profile(1, 2, 4)])


def test_an_empty_package_is_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, "tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(TensorRTError, match="an empty shell"):
        load_library()


def test_a_missing_shared_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text("import ctypes\nctypes.CDLL('libnvinfer_that_is_missing.so.10')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    block(monkeypatch, "tensorrt_rtx")
    with pytest.raises(TensorRTError, match=r"does not load .*libnvinfer_that_is_missing\.so\.10"):
        load_library()


def test_a_newer_major_version_is_tried_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module(version="12.0.0"))
    assert load_library().version == "12.0.0"
    assert "newer than any" in caplog.text

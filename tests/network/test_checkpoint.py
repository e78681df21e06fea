"""Checkpoints come back as they went, and every kind of wrong file is refused with its own reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network import checkpoint as module
from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ff3r_model.network.text_encoder import TextConfig, TextEncoder


@pytest.fixture(scope="module")
def models() -> tuple[FF3R, TextEncoder]:
    torch.manual_seed(0)
    return FF3R(FF3RConfig.nano()).eval(), TextEncoder(TextConfig.nano()).eval()


@pytest.fixture(scope="module")
def saved(models: tuple[FF3R, TextEncoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_checkpoint(path, *models, mode="trained", card={"steps": 3})
    return path


def altered(saved: Path, path: Path, change: object = None, header: dict[str, object] | None = None) -> Path:
    """The saved file again with its tensors changed in place by `change`, or its header's fields replaced."""
    with safe_open(saved, framework="pt") as file:
        metadata = json.loads(file.metadata()["ff3r"])
    tensors = load_file(saved)
    if callable(change):
        change(tensors)
    save_file(tensors, path, {"ff3r": json.dumps(metadata | (header or {}))})
    return path


def test_round_trip(models: tuple[FF3R, TextEncoder], saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert (loaded.mode, loaded.config, loaded.card) == ("trained", FF3RConfig.nano(), {"steps": 3})
    assert not loaded.network.training and not loaded.text_encoder.training
    images = torch.rand(1, 2, 3, 28, 42)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(images).depth, models[0](images).depth, rtol=0, atol=0)
        torch.testing.assert_close(loaded.text_encoder.encode(["sofa"]), models[1].encode(["sofa"]), rtol=0, atol=0)


def test_half_precision_file_loads_as_float32(models: tuple[FF3R, TextEncoder], saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, *models, mode="trained", card={}, dtype=torch.float16)
    assert path.stat().st_size < 0.51 * saved.stat().st_size + 1e5
    assert {p.dtype for p in load_checkpoint(path).network.parameters()} == {torch.float32}


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_truncated_file(saved: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.safetensors"
    content = saved.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)


def test_foreign_files(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not weights at all, but long enough to have a header")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(text)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, other)
    with pytest.raises(CheckpointError, match="no FF3R checkpoint"):
        load_checkpoint(other)
    save_file({"x": torch.zeros(2)}, other, {"ff3r": "[1]"})
    with pytest.raises(CheckpointError, match=r"its header is \[1\]"):
        load_checkpoint(other)


def test_renamed_tensor(saved: Path, tmp_path: Path) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["network.camera_head.trunk_nom.weight"] = tensors.pop("network.camera_head.trunk_norm.weight")

    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(altered(saved, tmp_path / "x.safetensors", rename))
    assert "1 missing: camera_head.trunk_norm.weight" in str(caught.value)
    assert "1 unexpected: camera_head.trunk_nom.weight" in str(caught.value)


def test_transposed_tensor(saved: Path, tmp_path: Path) -> None:
    def transpose(tensors: dict[str, torch.Tensor]) -> None:
        tensors["network.feature_decoder.weight"] = tensors["network.feature_decoder.weight"].T.contiguous()

    with pytest.raises(CheckpointError, match=r"feature_decoder.weight is \[32, 64\] and should be \[64, 32\]"):
        load_checkpoint(altered(saved, tmp_path / "x.safetensors", transpose))


def test_stray_tensor(saved: Path, tmp_path: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["optimizer.step"] = torch.zeros(1)

    with pytest.raises(CheckpointError, match=r"neither network nor text: optimizer\.step"):
        load_checkpoint(altered(saved, tmp_path / "x.safetensors", add))


@pytest.mark.parametrize(
    ("header", "reason"),
    [({"version": 99}, "version 99"), ({"mode": "dreaming"}, "'dreaming'"), ({"config": {"colour": 1}}, "colour")],
)
def test_headers_that_say_something_unknown(saved: Path, tmp_path: Path, header: dict, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(altered(saved, tmp_path / "x.safetensors", header=header))


def test_failed_save_leaves_the_old_file(
    models: tuple[FF3R, TextEncoder], saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nano.safetensors"
    path.write_bytes(saved.read_bytes())

    def full_disk(tensors: dict, name: str, metadata: dict) -> None:
        Path(name).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(path, *models, mode="trained", card={})
    assert path.read_bytes() == saved.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["nano.safetensors"]


def test_the_text_space_compares_words_with_decoded_features() -> None:
    checkpoint = load_checkpoint(module.NANO_WEIGHTS)
    decoder, space = checkpoint.network.feature_decoder, checkpoint.text_space
    features, words = torch.randn(7, decoder.in_features), checkpoint.text_encoder.encode(["chair", "door"])
    expected = torch.cosine_similarity(decoder(features)[:, None], words[None], dim=-1)
    torch.testing.assert_close(space.similarity(features, words), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        decoder.weight.zero_()
    assert space.decoder.any(), "a copy: it does not follow the weights"

"""TIPSv2 from public files to answers: conversion, checkpoint, pipeline, query, ONNX, teacher, on tiny stand-ins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from benchmarks.network.standin import tiny, write_published, write_tipsv2
from benchmarks.network.standin_values import standin_tensor
from ff3r_model.cli import main
from ff3r_model.core.types import Window
from ff3r_model.engine.onnx.export import ExportConfig, FramesGraph, _trace, prepared
from ff3r_model.engine.onnx.manifest import FRAMES, WINDOW, graph_path
from ff3r_model.engine.torch_engine import TorchEngine
from ff3r_model.network import FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint
from ff3r_model.network.public_weights import semantics
from ff3r_model.network.public_weights.convert import convert
from ff3r_model.network.public_weights.sources import Sources
from ff3r_model.network.sentencepiece_model import SentencePieceModel
from ff3r_model.network.tipsv2_text import TEMPLATES, TIPSv2TextEncoder
from ff3r_model.pipeline import Pipeline
from ff3r_model.training.recipe import student
from ff3r_model.training.teachers import NetworkTeacher
from tests.support import crafted, tiny_tipsv2
from tests.support.exports import export_unchecked, unchecked

IMAGES = np.load(Path(__file__).parents[1] / "reference" / "vggt_2x56x84.npz")["images"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins of VGGT's, TIPSv2's and its tokenizer's files, tiny; LSeg's beside them."""
    folder = tmp_path_factory.mktemp("tiny")
    write_published(folder, tiny())
    (folder / "tipsv2").mkdir()
    write_tipsv2(folder / "tipsv2", tiny_tipsv2.IMAGE, tiny_tipsv2.text_config())
    tiny_tipsv2.write_tokenizer(folder / "tipsv2")
    return folder


@pytest.fixture(autouse=True)
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny networks in the place of the published sizes."""
    monkeypatch.setattr(FF3RConfig, "full", staticmethod(tiny))
    monkeypatch.setitem(semantics.TIPSV2_SIZES, "tipsv2-tiny", (tiny_tipsv2.IMAGE, tiny_tipsv2.text_config))


def command(folder: Path, output: Path, *more: str) -> list[str]:
    tipsv2 = folder / "tipsv2"
    sources = ["--vggt", str(folder / "model.pt"), "--tipsv2", str(tipsv2), "--tokenizer", str(tipsv2)]
    return ["convert", *sources, "-o", str(output), *more]


@pytest.fixture(scope="module")
def weights(files: Path) -> Path:
    path = files / "converted.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FF3RConfig, "full", staticmethod(tiny))
        patch.setitem(semantics.TIPSV2_SIZES, "tipsv2-tiny", (tiny_tipsv2.IMAGE, tiny_tipsv2.text_config))
        assert main(command(files, path)) == 0
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for index, image in enumerate(IMAGES[0]):
        pixels = (image.transpose(1, 2, 0) * 255).round().astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), pixels[..., ::-1])
    return tmp_path


def test_what_was_converted_is_all_there(files: Path, weights: Path) -> None:
    loaded = load_checkpoint(weights)
    assert loaded.config.name == "tiny-tipsv2-tiny" and loaded.config.lseg is None and loaded.mode == "lifting"
    assert loaded.card["made_from"] == {"vggt": "model.pt", "tipsv2": "tipsv2", "tokenizer": "tokenizer.model"}
    assert "Apache-2.0" in loaded.card["terms"] and "non-commercial" in loaded.card["terms"]
    text = loaded.text_encoder
    assert isinstance(text, TIPSv2TextEncoder) and text.config.templates == TEMPLATES
    assert text.tokenizer_model.numpy().tobytes() == (files / "tipsv2" / "tokenizer.model").read_bytes()
    published = load_file(files / "tipsv2" / "model.safetensors")
    state = loaded.network.state_dict()
    for name, tensor in published.items():
        ours = f"tipsv2.{name}" if name.startswith("vision") else f"tower.{name.removeprefix('text_encoder.')}"
        assert torch.equal((state | text.state_dict())[ours], tensor), name


def test_features_of_pixels_have_the_cosines_of_patches(weights: Path) -> None:
    """64 channels are the whole width here: nothing is lost. Between patches, features are interpolated."""
    loaded = load_checkpoint(weights)
    images = torch.from_numpy(IMAGES[0])
    window = Window(images, (0, 1), (0, 1))
    prediction = TorchEngine(loaded.network)(window)
    with torch.inference_mode():
        seen = F.normalize(loaded.network.tipsv2(images).features, dim=1)
        full = F.interpolate(seen, (56, 84), mode="bilinear", align_corners=False)
        words = loaded.text_encoder.encode(["red chair", "door"])
        expected = F.cosine_similarity(full.permute(0, 2, 3, 1).flatten(0, 2)[:, None], words[None], dim=-1)
        ours = loaded.text_space.similarity(prediction.gaussians.features, words)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


def test_queries_are_scored_at_the_learned_temperature(weights: Path) -> None:
    assert Pipeline.from_checkpoint(weights).queries.temperature == 0.005065968260169029
    assert Pipeline.from_checkpoint().queries.temperature == 0.04


def test_from_images_to_an_answer(
    weights: Path, frames: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = frames / "out"
    options = ["--weights", str(weights), "--device", "cpu", "--views", "2", "--overlap", "1"]
    assert main(["reconstruct", str(frames), "-o", str(out), *options]) == 0
    assert main(["query", str(out), "red chair", "--weights", str(weights)]) == 0
    assert '"red chair":' in capfd.readouterr().out
    assert main(["query", str(out), "马桶", "--weights", str(weights)]) == 0
    assert "no word of '马桶' is known to this checkpoint" in caplog.text


def test_narrow_files_and_rewriting(files: Path, weights: Path, tmp_path: Path) -> None:
    assert main(["convert", "--ff3r", str(weights), "-o", str(tmp_path / "half"), "--precision", "float16"]) == 0
    whole, half = load_checkpoint(weights).text_encoder, load_checkpoint(tmp_path / "half").text_encoder
    assert torch.equal(half.tokenizer_model, whole.tokenizer_model)
    torch.testing.assert_close(half.encode(["chair"]), whole.encode(["chair"]), rtol=0, atol=1e-2)


def test_the_exported_encoder_computes_the_same(weights: Path, tmp_path: Path) -> None:
    network, images = load_checkpoint(weights).network, torch.from_numpy(IMAGES[0])
    options, path = ExportConfig(56, 84, "float32", "decomposed"), tmp_path / "frames.onnx"
    ready = prepared(network, options)
    with torch.inference_mode():
        expected = network.encode_frames(images[None]).tensors()
    with torch.no_grad(), unchecked():
        example = torch.zeros(3, 3, 56, 84)
        _trace(FramesGraph(ready), (example,), ("images",), tuple(expected), options, path, low=1)
    found = onnxruntime.InferenceSession(path).run(list(expected), {"images": images.numpy()})
    for ours, theirs in zip(found, expected.values(), strict=True):
        np.testing.assert_allclose(ours, theirs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_both_exported_graphs_compute_the_same(weights: Path, tmp_path: Path) -> None:
    network = load_checkpoint(weights).network
    export_unchecked(network, ExportConfig(56, 84, "float32", "decomposed"), tmp_path / "out")
    frames, window = (onnxruntime.InferenceSession(graph_path(tmp_path / "out", name)) for name in (FRAMES, WINDOW))
    images = torch.from_numpy(IMAGES[0])
    with torch.inference_mode():
        features = network.encode_frames(images[None])
        output = network.decode_window(images[None], features)
    names = [value.name for value in frames.get_outputs()]
    found = dict(zip(names, frames.run(None, {"images": images.numpy()}), strict=True))
    for name, tensor in features.tensors().items():
        np.testing.assert_allclose(found[name], tensor[0], rtol=1e-4, atol=1e-4)
    given = {value.name: (found | {"images": images.numpy()})[value.name] for value in window.get_inputs()}
    depth = dict(zip([value.name for value in window.get_outputs()], window.run(None, given), strict=True))["depth"]
    np.testing.assert_allclose(depth, output.depth[0], rtol=1e-4, atol=1e-4)


def test_it_teaches_and_learns(weights: Path) -> None:
    """As teacher it says features on its own grid; as student it gets fusion and Gaussian head, which learn."""
    start = load_checkpoint(weights)
    images = torch.from_numpy(IMAGES)
    taught = NetworkTeacher(start.network)(images, ("a", "b"))
    with torch.inference_mode():
        expected = start.network.tipsv2(images[0]).features
    torch.testing.assert_close(taught.features[0], expected.half().float())
    network = student(start, fresh=False, seed=0)
    output = network(images)
    output.gaussians.feature.square().mean().backward()
    assert network.fusion.key.weight.grad.any() and network.tipsv2.vision_encoder.norm.weight.grad.any()


def test_a_run_with_it_as_teacher_and_start(weights: Path, frames: Path, tmp_path: Path) -> None:
    teacher, out = tmp_path / "half.safetensors", tmp_path / "run"
    assert main(["convert", "--ff3r", str(weights), "-o", str(teacher), "--precision", "float16"]) == 0
    options = ["--weights", str(weights), "--teacher", str(teacher), "--images", str(frames), "--steps", "1"]
    options += ["--views", "2", "--total-views", "2", "--long-side", "56", "--device", "cpu"]
    assert main(["train", "-o", str(out), *options]) == 0
    made = load_checkpoint(out / "checkpoint.safetensors")
    assert made.mode == "trained" and made.config.tipsv2 == tiny_tipsv2.IMAGE
    assert isinstance(made.text_encoder, TIPSv2TextEncoder)


def damaged(files: Path, folder: Path, change: Callable[[dict], object]) -> Path:
    state = load_file(files / "tipsv2" / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


def only(prefix: str) -> Callable[[dict], object]:
    return lambda state: [state.pop(name) for name in list(state) if not name.startswith(prefix)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("text_encoder.ln_final.bias"), "1 missing: ln_final.bias"),
        (lambda s: s.update({"vision_encoder.norm.bias": torch.zeros(3)}), r"norm.bias is \[3\] and should be \[64\]"),
        (lambda s: s.update({"vision_encoder.lora_a": torch.zeros(3)}), "1 unexpected: vision_encoder.lora_a"),
        (only("vision_encoder."), "has no tensor under 'text_encoder.': it is half of TIPSv2"),
        (only("text_encoder."), "has no tensor under 'vision_encoder.'"),
        (lambda s: s.update({"vision_encoder.cls_token": torch.zeros(1, 1, 1152)}), "of width 1152 with 2 blocks; goo"),
        (lambda s: s.pop("vision_encoder.cls_token"), "of width 0 with 2 blocks"),
        (lambda s: s.update({"vision_encoder.blocks.0.mlp.w12.weight": torch.zeros(1)}), "is TIPSv2 g/14"),
    ],
)
def test_wrong_tensors_are_named(files: Path, tmp_path: Path, change: Callable, reason: str) -> None:
    path = damaged(files, tmp_path, change)
    with pytest.raises(CheckpointError, match=reason):
        convert(Sources(vggt=files / "model.pt", tipsv2=path, tokenizer=files / "tipsv2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--vggt {0}/model.pt --tipsv2 {0}/tipsv2", "--tipsv2 needs --tokenizer, the tokenizer.model"),
        ("--vggt {0}/model.pt --lseg {0}/demo_e200.ckpt --tokenizer {0}/tipsv2", "--tokenizer is TIPSv2's"),
        ("--vggt {0}/model.pt --tipsv2 {0}/tipsv2 --tokenizer {0}/tipsv2 --clip {0}/model.pt", "--clip is LSeg's"),
        ("--vggt {0}/model.pt --tipsv2 {0}/tipsv2 --tokenizer {0}/tipsv2 --lseg {0}/demo_e200.ckpt", "not both"),
        ("--tipsv2 {0}/tipsv2 --tokenizer {0}/tipsv2", "give one file for cameras and depth"),
        ("--vggt {0}/model.pt --tipsv2 {0}/demo_e200.ckpt --tokenizer {0}/tipsv2", "ckpt looks like LSeg's"),
        ("--vggt {0}/model.pt --tipsv2 {0}/model.pt --tokenizer {0}/tipsv2", "model.pt looks like VGGT's"),
        ("--vggt {0}/tipsv2 --tipsv2 {0}/tipsv2 --tokenizer {0}/tipsv2", "looks like TIPSv2's, and --vggt is for"),
        ("--vggt {0}/model.pt --lseg {0}/tipsv2", "looks like TIPSv2's, and --lseg is for LSeg's"),
        ("--vggt {0}/model.pt --tipsv2 {0}/tipsv2 --tokenizer {0}/none", "none is not there"),
        ("--vggt {0}/model.pt --tipsv2 {0}/tipsv2 --tokenizer {0}/model.pt", "is no SentencePiece model"),
        ("--vggt {0}/model.pt --tipsv2 {0}/x.npz --tokenizer {0}/tipsv2", "x.npz holds NumPy's arrays"),
        ("--vggt {0}/model.pt --tipsv2 {0}/tipsv2 --tokenizer {0}/tipsv2 --channels 65", "1 to 64 channels"),
        ("--ff3r {0}/model.pt --tokenizer {0}/tipsv2", "give it without --tokenizer"),
    ],
)
def test_convert_refuses_in_one_line(
    files: Path, tmp_path: Path, options: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    np.savez(files / "x.npz", temperature=np.zeros(1))
    output = tmp_path / "out.safetensors"
    assert main(["convert", *options.format(files).split(), "-o", str(output)]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("ff3r: ") and words in error and not output.exists()


def test_a_strange_tokenizer_of_the_published_size_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = Mock(spec=SentencePieceModel, pieces=semantics.PUBLISHED_VOCABULARY)
    model.encode.return_value = [7]
    semantics._check_pieces(model, "spiece.model")
    assert "spiece.model: 'hello' becomes [7], and [5928] in TIPSv2" in caplog.text


CRAFTED = {
    "text_config.kind": "clop",
    "text_config.tokenizer_bytes": 10**12,
    "text_config.vocabulary": 10**9,
    "text_config.width": 63,
    "text_config.layers": 10**6,
    "text_config.heads": 0,
    "text_config.context_length": 10**6,
    "text_config.temperature": 0,
    "text_config.templates": [],
    "config.lseg": {},
    "config.tipsv2": None,
    "config.tipsv2.vit.patch": 0,
    "config.tipsv2.vit.registers": -1,
}


@pytest.mark.parametrize("at", CRAFTED)
def test_crafted_fields_are_refused(weights: Path, tmp_path: Path, at: str) -> None:
    header = crafted.checkpoint_header(weights)
    crafted.set_field(header, tuple(at.split(".")), CRAFTED[at])
    crafted.with_checkpoint_header(weights, tmp_path / "changed", header)
    with pytest.raises(CheckpointError, match=at.rpartition(".")[2]):
        load_checkpoint(tmp_path / "changed")


@pytest.mark.parametrize("template", ["no place", "{}{}", "{:>1000000000}", "{0}", "{} " * 2, "x" * 1000 + "{}", 7])
def test_crafted_templates_are_refused(weights: Path, tmp_path: Path, template: object) -> None:
    header = crafted.checkpoint_header(weights)
    header["text_config"]["templates"] = ["a {}.", template]
    crafted.with_checkpoint_header(weights, tmp_path / "changed", header)
    with pytest.raises(CheckpointError, match=r"templates\[1\]"):
        load_checkpoint(tmp_path / "changed")


@pytest.mark.parametrize("how", ["zeros", "random", "other type", "shorter", "removed"])
def test_crafted_tokenizers_are_refused(weights: Path, tmp_path: Path, how: str) -> None:
    tensors, name = load_file(weights), "text.tokenizer_model"
    size = len(tensors[name])
    new = {
        "zeros": torch.zeros(size, dtype=torch.uint8),
        "random": torch.randint(0, 256, (size,), dtype=torch.uint8),
        "other type": tensors[name].long() + 256,
        "shorter": tensors[name][:-1].clone(),
        "removed": None,
    }[how]
    tensors.pop(name)
    save_file(tensors | ({} if new is None else {name: new}), tmp_path / "new")
    crafted.with_checkpoint_metadata(tmp_path / "new", crafted.checkpoint_header(weights))
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_checkpoint(tmp_path / "new")


def test_headers_name_the_kind_of_text_encoder_only_where_it_is_not_clips(weights: Path) -> None:
    assert crafted.checkpoint_header(weights)["text_config"]["kind"] == "tipsv2"
    assert json.dumps(crafted.checkpoint_header(weights)).count("kind") == 1
    assert standin_tensor("text_encoder.x.in_proj_weight", (4, 400)).std() < 0.1

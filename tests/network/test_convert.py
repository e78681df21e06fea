"""Public files → our checkpoint, on tiny stand-ins with the published names; and every kind of wrong file."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ff3r_model.core.errors import UserError
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint
from ff3r_model.network.config import AggregatorConfig, CameraHeadConfig, DPTConfig, LSegConfig, ViTConfig
from ff3r_model.network.public_weights import convert as module
from ff3r_model.network.public_weights import semantics
from ff3r_model.network.public_weights.compact_space import Basis, fit_basis, shipped_words
from ff3r_model.network.public_weights.convert import convert, convert_own
from ff3r_model.network.public_weights.read_weights import read_tensors
from ff3r_model.network.public_weights.sources import Sources
from ff3r_model.network.public_weights.tensor_names import CLIP_UNUSED, LSEG_UNUSED, VGGT_UNUSED, expand, split_lseg
from ff3r_model.network.text_encoder import TextConfig, TextEncoder

REFERENCE = Path(__file__).parents[1] / "reference"
DPT = DPTConfig(channels=(8, 8, 8, 8), features=8, hidden=(8, 8))
TINY = replace(
    FF3RConfig.full(),
    encoder=ViTConfig(width=16, depth=1, heads=2, grid=4, registers=1),
    aggregator=AggregatorConfig(depth=4, heads=2, registers=1, layers=(0, 1, 2, 3)),
    camera=CameraHeadConfig(depth=1, heads=2),
    depth=DPT,
    lseg=LSegConfig(
        vit=ViTConfig(
            width=16, depth=4, heads=2, patch=16, grid=4, registers=0, layer_scale=None, interpolation="bilinear"
        ),
        layers=(0, 1, 2, 3),
        channels=(8, 8, 8, 8),
        features=8,
    ),
    text_width=32,
)
TEXT = TextConfig(dim=32, width=16, heads=2, layers=1, vocabulary_rank=4)


class Callback:
    """A trainer's object, of which a checkpoint is full."""

    def __init__(self) -> None:
        self.best = 0.5


class Attack:
    """Unpickling this runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def small_text(monkeypatch: pytest.MonkeyPatch) -> TextEncoder:
    """A small tower in place of CLIP's, whose loading text.py's own tests hold to the reference vectors."""
    torch.manual_seed(0)
    text = TextEncoder(TEXT).eval()
    monkeypatch.setattr(semantics, "load_clip_text", lambda tensors: text)
    return text


@pytest.fixture
def source() -> FF3R:
    torch.manual_seed(1)
    network = FF3R(replace(TINY, decode_gaussians=False, feature_channels=8)).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network


def vggt_state(network: FF3R) -> dict[str, Tensor]:
    state = {k: v for k, v in network.state_dict().items() if k.split(".")[0] not in ("lseg", "feature_decoder")}
    return state | {name: torch.zeros(1) for name in VGGT_UNUSED}


def lseg_state(network: FF3R) -> dict[str, Tensor]:
    state = {f"net.{name}": tensor for name, tensor in network.lseg.state_dict().items()}
    state |= {f"net.{name}": torch.zeros(1) for name in LSEG_UNUSED}
    return state | {f"net.clip_pretrained.{name}": torch.zeros(1) for name in [*CLIP_UNUSED, "ln_final.weight"]}


@pytest.fixture
def files(source: FF3R, tmp_path: Path) -> tuple[Path, Path]:
    vggt, lseg = tmp_path / "model.pt", tmp_path / "demo.ckpt"
    torch.save(vggt_state(source), vggt)
    torch.save({"state_dict": lseg_state(source), "callbacks": {Callback: Callback()}, "epoch": 200}, lseg)
    return vggt, lseg


def from_files(files: tuple[Path, Path], output: Path, clip: Path | None = None) -> Basis:
    """A checkpoint of VGGT's and LSeg's files."""
    return convert(Sources(vggt=files[0], lseg=files[1], clip=clip), output, channels=8, config=TINY)


def test_names_to_ignore_are_those_of_the_published_files() -> None:
    vggt = json.loads((REFERENCE / "vggt_1b_shapes.json").read_text())
    clip = json.loads((REFERENCE / "clip_vitb32_shapes.json").read_text())
    lseg = json.loads((REFERENCE / "lseg_vitl16_shapes.json").read_text())
    assert {name for name in vggt if name.startswith(("point_head", "track_head"))} == VGGT_UNUSED
    constants = {"logit_scale", "input_resolution", "context_length", "vocab_size"}
    assert {name for name in clip if name.startswith("visual.")} | constants == CLIP_UNUSED
    assert set(lseg) > LSEG_UNUSED


def test_patterns_spell_names() -> None:
    assert expand("a{0-2}.{x,y}", "b") == {"a0.x", "a0.y", "a1.x", "a1.y", "a2.x", "a2.y", "b"}


def test_converted_network_computes_what_its_sources_do(
    files: tuple[Path, Path], source: FF3R, small_text: TextEncoder, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "ff3r.safetensors"
    basis = from_files(files, output)
    loaded = load_checkpoint(output)
    assert loaded.mode == "lifting"
    assert loaded.card["compact_features"]["words"] == basis.words > 100
    images = torch.rand(1, 2, 3, 28, 42)
    with torch.inference_mode():
        ours, theirs = loaded.network(images), source(images)
    torch.testing.assert_close(ours.depth, theirs.depth)
    torch.testing.assert_close(ours.pose_encodings, theirs.pose_encodings)
    torch.testing.assert_close(ours.semantics, theirs.semantics)
    assert ours.gaussians is None
    unit = ours.semantics / ours.semantics.norm(dim=2, keepdim=True)
    torch.testing.assert_close(ours.lifted, torch.einsum("dc,bvdhw->bvchw", basis.vectors, unit))


def test_basis_is_orthonormal_and_reports_what_it_keeps(small_text: TextEncoder) -> None:
    words = shipped_words()
    basis = fit_basis(small_text, words, 8)
    torch.testing.assert_close(basis.vectors.T @ basis.vectors, torch.eye(8), atol=1e-5, rtol=0)
    embeddings = small_text.encode(words)
    back = embeddings @ basis.vectors @ basis.vectors.T
    cosines = torch.nn.functional.cosine_similarity(embeddings, back)
    assert basis.mean_cosine == pytest.approx(float(cosines.mean()), abs=1e-4)
    assert basis.worst_cosine == pytest.approx(float(cosines.min()), abs=1e-4)
    assert fit_basis(small_text, words, 16).mean_cosine > basis.mean_cosine
    assert torch.equal(fit_basis(small_text, words, 32).vectors, torch.eye(32))


def test_own_checkpoints_are_taken_too(files: tuple[Path, Path], small_text: TextEncoder, tmp_path: Path) -> None:
    from_files(files, tmp_path / "a.safetensors")
    convert_own(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype=torch.float16)
    assert load_checkpoint(tmp_path / "b.safetensors").mode == "lifting"
    assert (tmp_path / "b.safetensors").stat().st_size < (tmp_path / "a.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.update({"camera_head.x": s.pop("camera_head.token_norm.bias")}), "1 unexpected: camera_head.x"),
        (lambda s: s.pop("aggregator.camera_token"), "1 missing: aggregator.camera_token"),
        (lambda s: s.update({"depth_head.norm.bias": torch.zeros(3)}), r"depth_head.norm.bias is \[3\]"),
        (lambda s: s.update({"track_head.surprise": torch.zeros(3)}), "1 unexpected: track_head.surprise"),
    ],
)
def test_wrong_tensors_are_named(
    source: FF3R, small_text: TextEncoder, files: tuple[Path, Path], change: Callable, reason: str, tmp_path: Path
) -> None:
    state = vggt_state(source)
    change(state)
    torch.save(state, files[0])
    with pytest.raises(CheckpointError, match=reason):
        from_files(files, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_files_the_wrong_way_round(files: tuple[Path, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"demo_e200\.ckpt"):
        split_lseg(read_tensors(files[0], "state_dict"), str(files[0]))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_pickle(files: tuple[Path, Path], share: float) -> None:
    content = files[1].read_bytes()
    files[1].write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="truncated"):
        read_tensors(files[1], "state_dict")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_never_runs(tmp_path: Path, zipped: bool) -> None:
    path, marker = tmp_path / "evil.ckpt", tmp_path / "ran"
    content = {"state_dict": {"net.x": torch.zeros(1)}, "hyper_parameters": Attack(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"(posix|nt)\.system"):
        read_tensors(path, "state_dict")
    assert not marker.exists()


def test_unknown_callables_become_placeholders(tmp_path: Path) -> None:
    class Partial:
        def __reduce__(self) -> tuple[Callable, tuple]:
            return struct.pack, ("<I", 7)

    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": {"net.x": torch.ones(2)}, "odd": Partial(), "callbacks": [Callback()]}, path)
    assert torch.equal(read_tensors(path, "state_dict")["net.x"], torch.ones(2))


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        read_tensors(tmp_path / "none.pt")
    path = tmp_path / "list.pt"
    path.write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(CheckpointError, match=str(path)):
        read_tensors(path)


TENSORS = {"a.x": torch.arange(3.0), "b.y": torch.ones(2)}
PREFIXED = {f"module.{name}": tensor for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"model": TENSORS, "epoch": 3},
        {"state_dict": TENSORS},
        {"weights": TENSORS},
        {"model": {"state_dict": PREFIXED}, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}},
        PREFIXED,
        {f"_orig_mod.{name}": tensor for name, tensor in PREFIXED.items()},
        {f"model.{name}": tensor for name, tensor in TENSORS.items()},
    ],
)
def test_trainers_wrappers_and_prefixes_are_taken_off(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    found = read_tensors(tmp_path / "x.pt")
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"ema": TENSORS, "net": TENSORS}, r"several state dicts \('ema', 'net'\): save the wanted one alone"),
        ({**TENSORS, "epoch": 3}, "'epoch' is no tensor; save the state dict alone"),
        ({**TENSORS, "optimizer": {"state": TENSORS}}, "'optimizer' is no tensor"),
        ({f"key{number}": number for number in range(100)}, "'key0', 'key1', 'key2' and 97 more is no tensor"),
        ({}, "holds a dict without tensors"),
        (torch.ones(2), "holds a StoredTensor without tensors"),
        ({"a": {"b": {"c": {"d": {"e": TENSORS}}}}}, "more than 4 times"),
    ],
)
def test_ambiguous_files_say_what_to_do(content: object, reason: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=reason) as refusal:
        read_tensors(tmp_path / "x.pt")
    assert len(str(refusal.value)) < 400


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    weight_map = {"a.x": "model-1-of-2.safetensors", "b.y": "model-2-of-2.safetensors"}
    index.write_text(json.dumps({"weight_map": weight_map}))
    save_file({"a.x": TENSORS["a.x"]}, tmp_path / "model-1-of-2.safetensors")
    with pytest.raises(CheckpointError, match=r"lists 2 shards, and 'model-2-of-2\.safetensors' is not there"):
        read_tensors(tmp_path)
    save_file({"b.y": TENSORS["b.y"]}, tmp_path / "model-2-of-2.safetensors")
    for path in (tmp_path, index):
        assert read_tensors(path).keys() == TENSORS.keys()
    for text in ("{", "[]", '{"weight_map": {"x": "../secret.pt"}}', '{"weight_map": {"x": 7}}', '{"weight_map": {}}'):
        index.write_text(text)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            read_tensors(tmp_path)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"is a folder without model\.safetensors or"):
        read_tensors(tmp_path)
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert read_tensors(tmp_path).keys() == TENSORS.keys()


def test_files_are_looked_at_before_any_work(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in (module, semantics):
        monkeypatch.setattr(reader, "read_tensors", lambda *_: pytest.fail("something was read"))
    vggt, lseg = files
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, reason in (
        ((tmp_path / "none.pt", lseg, tmp_path / "out"), r"none\.pt is not there"),
        ((vggt, tmp_path / "none.pt", tmp_path / "out"), r"none\.pt is not there"),
        ((vggt, lseg, vggt), "is one of the files to convert"),
        ((vggt, lseg, tmp_path / "x" / ".." / lseg.name), "is one of the files to convert"),
        ((vggt, lseg, tmp_path), "is a folder"),
        ((vggt, lseg, vggt / "below"), "cannot be written"),
    ):
        with pytest.raises(UserError, match=reason):
            from_files(arguments[:2], arguments[2])
    with pytest.raises(UserError, match=r"none\.pt is not there"):
        from_files(files, tmp_path / "out", clip=tmp_path / "none.pt")
    with pytest.raises(UserError, match="is one of the files"):
        convert_own(vggt, vggt)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_swapped_and_foreign_files_are_named_shortly(
    files: tuple[Path, Path], small_text: TextEncoder, tmp_path: Path
) -> None:
    vggt, lseg = files
    torch.save({f"layer{number}.weight": torch.zeros(1) for number in range(148)}, tmp_path / "other.pt")
    torch.save(dict.fromkeys(["text_model.a", "vision_model.b"], torch.zeros(1)), tmp_path / "hf.pt")
    out = tmp_path / "out.safetensors"
    for arguments, clip, reason in (
        ((lseg, vggt), None, r"model\.pt .*looks like VGGT's, and --lseg is for LSeg's weights"),
        ((lseg, lseg), None, r"demo\.ckpt looks like LSeg's, and --vggt is for VGGT's weights"),
        ((vggt, tmp_path / "other.pt"), None, r"other\.pt .*holds none that are known.*layer2.weight and 145 more"),
        (
            (vggt, lseg),
            tmp_path / "hf.pt",
            r"looks like CLIP's in Hugging Face's form, and --clip is for CLIP's",
        ),
        ((vggt, lseg), vggt, r"looks like VGGT's, and --clip is for CLIP's"),
    ):
        with pytest.raises(CheckpointError, match=reason) as refusal:
            from_files(arguments, out, clip=clip)
        assert len(str(refusal.value)) < 500 and not out.exists()

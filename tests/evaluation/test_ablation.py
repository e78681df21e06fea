"""The ablation trains every variant alike, keeps what is finished, and reports what was found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ff3r_model.evaluation import ablation
from ff3r_model.evaluation.ablation import VARIANTS, AblationConfig, ablate, fresh_heads, report
from ff3r_model.network.checkpoint import NANO_WEIGHTS
from ff3r_model.training.datasets.room_shards import write_shards
from ff3r_model.training.run_folder import RunError


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms")
    write_shards(folder, 100_000, 1, 1, 4)
    return folder


def small(rooms: Path, output: Path) -> AblationConfig:
    return AblationConfig(
        rooms, output, seeds=(0,), steps=1, views=2, total_views=2, render_views=1, test_views=2, test_rooms=1
    )


@pytest.mark.skipif(not NANO_WEIGHTS.exists(), reason="the package has no weights")
def test_variants_are_trained_once_and_tabled(rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "TABLE_3", VARIANTS[3:4])
    monkeypatch.setattr(ablation, "VARIANTS", VARIANTS[3:])
    config = small(rooms, tmp_path / "out")
    table = ablate(config).read_text()
    assert table.count("| + semantic voxelization |") == 2 and "| without distillation |" in table
    saved = json.loads((config.output / "ablation.json").read_text())["figures"]
    assert saved["without distillation"]["0"]["psnr"] > 3
    with_distillation = (config.output / "semantic_voxelization_0/log.jsonl").read_text()
    without = (config.output / "without_distillation_0/log.jsonl").read_text()
    assert '"camera"' in with_distillation and '"camera"' not in without and '"warp"' in without

    monkeypatch.setattr(ablation, "_trainer", None)  # whatever is finished must not be trained again
    assert ablate(config).read_text() == table
    with pytest.raises(RunError, match="other steps"):
        ablate(replace(config, steps=2))


@pytest.mark.skipif(not NANO_WEIGHTS.exists(), reason="the package has no weights")
def test_variants_of_a_seed_start_alike(rooms: Path, tmp_path: Path) -> None:
    config = small(rooms, tmp_path)
    base, full, other = (
        fresh_heads(config, VARIANTS[0], 0),
        fresh_heads(config, VARIANTS[3], 0),
        fresh_heads(config, VARIANTS[3], 1),
    )
    for name, value in full.state_dict().items():
        same = torch.equal(value, base.state_dict()[name])
        assert same or name.startswith("fusion.proj"), name
    assert not base.fusion.proj.weight.any() and full.fusion.proj.weight.any()
    new = {name for name, value in full.state_dict().items() if not torch.equal(value, other.state_dict()[name])}
    assert new and all(name.startswith(("fusion.", "gaussian_head.")) for name in new)
    assert full.aggregator.camera_token.requires_grad


def test_the_table_says_mean_and_spread(rooms: Path, tmp_path: Path) -> None:
    config = replace(small(rooms, tmp_path), seeds=(0, 1))
    figures = {
        variant.name: {0: {"psnr": 10.0 + row, "ssim": 0.5, "lpips": None}, 1: {"psnr": 12.0 + row, "ssim": 0.5}}
        for row, variant in enumerate(VARIANTS)
    }
    lines = report(config, figures).splitlines()
    assert "| base | 11.00 ± 1.41 | 0.500 ± 0.000 | – | – | – | – | – | – |" in lines
    assert sum(line.startswith("| + semantic voxelization | 14.00") for line in lines) == 2
    assert any(line.startswith("| without distillation | 15.00") for line in lines)

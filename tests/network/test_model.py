"""The network against independent arithmetic, and the promises of its interface at the nano size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from ff3r_model.network import FF3R, FF3RConfig, NetworkOutput
from ff3r_model.network.config import FusionConfig, ViTConfig
from ff3r_model.network.dpt import Refinement, ResidualUnit, add_positions
from ff3r_model.network.encoder import VisionTransformer
from ff3r_model.network.fusion import Fusion
from ff3r_model.network.layers import Attention, patch_positions, rotary

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def nano() -> FF3R:
    torch.manual_seed(0)
    return FF3R(FF3RConfig.nano()).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(1, 4, 3, 56, 84, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def output(nano: FF3R, images: torch.Tensor) -> NetworkOutput:
    with torch.inference_mode():
        return nano(images)


def test_rotary_is_multiplication_by_complex_numbers() -> None:
    positions, dim, base = patch_positions(3, 5, 2, torch.device("cpu")), 16, 100.0
    x = torch.randn(2, 3, len(positions), dim, dtype=torch.float64)
    expected = torch.empty_like(x)
    for axis in range(2):
        half = x[..., axis * 8 : axis * 8 + 8]
        pairs = torch.complex(half[..., :4], half[..., 4:])
        frequency = torch.tensor([base ** (-i / 4) for i in range(4)], dtype=torch.float64)
        angle = positions[:, axis, None].double() * frequency
        turned = pairs * torch.polar(torch.ones_like(angle), angle)
        expected[..., axis * 8 : axis * 8 + 8] = torch.cat([turned.real, turned.imag], dim=-1)
    torch.testing.assert_close(rotary(positions, dim, base).rotate(x), expected, atol=1e-5, rtol=1e-5)


def test_special_tokens_stand_at_the_origin_and_patches_start_at_one() -> None:
    positions = patch_positions(2, 3, 5, torch.device("cpu"))
    assert positions[:5].abs().sum() == 0
    assert positions[5:].tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


def test_attention_is_softmax_of_normalised_rotated_products() -> None:
    torch.manual_seed(0)
    attention = Attention(24, 2, qk_norm=True).double()
    rope = rotary(patch_positions(2, 2, 1, torch.device("cpu")), 12, 100.0)
    x = torch.randn(3, 5, 24, dtype=torch.float64)
    q, k = attention.queries_keys(x, rope)
    values = attention.qkv(x)[..., 48:].view(3, 5, 2, 12).transpose(1, 2)
    weights = torch.softmax(q @ k.transpose(-1, -2) / 12**0.5, dim=-1)
    expected = attention.proj((weights @ values).transpose(1, 2).reshape(3, 5, 24))
    torch.testing.assert_close(attention(x, rope), expected)


@pytest.mark.parametrize("residual", [True, False])
def test_fusion_is_equation_one(residual: bool) -> None:
    torch.manual_seed(0)
    fusion = Fusion(FusionConfig(heads=2, width=8), geometry=12, semantics=6, residual=residual).double()
    geometry, semantics = torch.randn(2, 5, 12, dtype=torch.float64), torch.randn(2, 7, 6, dtype=torch.float64)
    expected = torch.zeros(2, 5, 8, dtype=torch.float64)
    queries, keys, values = fusion.query(fusion.norm(geometry)), fusion.key(semantics), fusion.value(semantics)
    for frame in range(2):
        for token in range(5):
            for head in (slice(0, 4), slice(4, 8)):
                scores = torch.stack([queries[frame, token, head] @ keys[frame, j, head] / 2 for j in range(7)])
                weights = scores.exp() / scores.exp().sum()
                expected[frame, token, head] = sum(weights[j] * values[frame, j, head] for j in range(7))
    expected = fusion.proj(expected) + (geometry if residual else 0)
    torch.testing.assert_close(fusion(geometry, semantics), expected)


@pytest.mark.parametrize("relu_skip", [True, False])
def test_residual_unit_adds_what_the_published_code_adds(relu_skip: bool) -> None:
    unit = ResidualUnit(4, batch_norm=False, relu_skip=relu_skip)
    torch.nn.init.zeros_(unit.conv2.weight)
    torch.nn.init.zeros_(unit.conv2.bias)
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(unit(x), x.clamp(min=0) if relu_skip else x)


def test_refinement_without_a_finer_map_only_enlarges_and_convolves() -> None:
    refinement = Refinement(4, joins=False, batch_norm=False, relu_skip=False)
    x = torch.randn(1, 4, 3, 5)
    unit = F.interpolate(refinement.resConfUnit2(x), (6, 10), mode="bilinear", align_corners=True)
    torch.testing.assert_close(refinement(x, None, (6, 10)), refinement.out_conv(unit))


def test_decoder_positions_cell_by_cell() -> None:
    height, width, channels = 3, 5, 8
    got = add_positions(torch.zeros(1, channels, height, width), aspect=width / height)
    diagonal = (1 + (width / height) ** 2) ** 0.5
    for row in range(height):
        for column in range(width):
            u = (2 * column + 1 - width) / width * (width / height) / diagonal
            v = (2 * row + 1 - height) / height / diagonal
            angles = [torch.tensor([place, place / 10.0]) for place in (u, v)]
            waves = torch.cat([part for a in angles for part in (a.sin(), a.cos())])
            torch.testing.assert_close(got[0, :, row, column], 0.1 * waves, atol=1e-6, rtol=1e-5)


def test_position_embedding_is_left_alone_at_its_own_size() -> None:
    vit = VisionTransformer(ViTConfig(width=8, depth=1, heads=1, grid=4, registers=0))
    torch.nn.init.normal_(vit.pos_embed)
    assert vit.positions(4, 4) is vit.pos_embed
    assert vit.positions(2, 7).shape == (1, 15, 8)


def test_full_preset_has_exactly_the_published_tensors_and_ours() -> None:
    from ff3r_model.network.public_weights.tensor_names import LSEG_UNUSED, VGGT_UNUSED

    with torch.device("meta"):
        network = FF3R(FF3RConfig.full())
    ours = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    vggt = json.loads((REFERENCE / "vggt_1b_shapes.json").read_text())
    lseg = json.loads((REFERENCE / "lseg_vitl16_shapes.json").read_text())
    published = {name: shape for name, shape in vggt.items() if name not in VGGT_UNUSED}
    published |= {f"lseg.{name}": shape for name, shape in lseg.items() if name not in LSEG_UNUSED}
    added = {name for name in ours if name.split(".")[0] in ("fusion", "gaussian_head", "feature_decoder")}
    assert {name: shape for name, shape in ours.items() if name not in added} == published


def test_nano_is_small(nano: FF3R) -> None:
    assert sum(parameter.numel() for parameter in nano.parameters()) <= 11_000_000


def test_output_shapes(output: NetworkOutput) -> None:
    assert output.pose_encodings.shape == (4, 1, 4, 9)
    assert output.depth.shape == output.depth_confidence.shape == (1, 4, 56, 84)
    assert output.semantics is not None and output.semantics.shape == (1, 4, 64, 32, 48)
    assert output.tokens.shape == (1, 4, 5 + 24, 2 * 192)
    parts = {name: value.shape[2] for name, value in vars(output.gaussians).items()}
    assert parts == {
        "log_scale": 3, "quaternion": 4, "harmonics": 3, "opacity_logit": 1, "confidence_logit": 1, "feature": 32,
    }  # fmt: skip
    assert all(value.shape[-2:] == (56, 84) for value in vars(output.gaussians).values())
    assert (output.depth > 0).all() and (output.depth_confidence > 1).all()


def test_untrained_poses_start_near_the_identity(output: NetworkOutput) -> None:
    prior = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1.0])
    assert (output.pose_encodings - prior).abs().max() < 0.2


@pytest.mark.parametrize("views", [1, 65])
def test_too_few_or_many_views_are_refused(nano: FF3R, views: int) -> None:
    with pytest.raises(ValueError, match=f"2 to 64 views at once, not {views}"):
        nano(torch.zeros(1, views, 3, 14, 14))


def test_sides_that_are_no_multiples_of_the_patch_are_refused(nano: FF3R) -> None:
    with pytest.raises(ValueError, match="multiples of 14, not 56×80"):
        nano(torch.zeros(1, 2, 3, 56, 80))


def test_later_views_are_interchangeable(nano: FF3R, images: torch.Tensor, output: NetworkOutput) -> None:
    order = [0, 3, 1, 2]
    with torch.inference_mode():
        other = nano(images[:, order])
    torch.testing.assert_close(other.depth, output.depth[:, order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other.pose_encodings, output.pose_encodings[:, :, order], atol=1e-4, rtol=1e-4)
    feature, expected = other.gaussians.feature, output.gaussians.feature[:, order]
    torch.testing.assert_close(feature, expected, atol=1e-4, rtol=1e-4)


def test_windows_of_a_batch_do_not_mix_and_chunks_change_nothing(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    whole = FF3R(replace(FF3RConfig.nano(), head_chunk=64)).eval()
    pieces = FF3R(replace(FF3RConfig.nano(), head_chunk=3)).eval()
    pieces.load_state_dict(whole.state_dict())
    batch = torch.cat([images, images.flip(1)])
    with torch.inference_mode():
        together, apart = whole(batch), pieces(images.flip(1))
    torch.testing.assert_close(together.depth[1:], apart.depth, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.gaussians.feature[1:], apart.gaussians.feature, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.pose_encodings[:, 1:], apart.pose_encodings, atol=1e-4, rtol=1e-4)


def test_semantics_reach_the_gaussians_but_not_the_geometry(nano: FF3R, images: torch.Tensor) -> None:
    output = nano(images[:, :2])
    output.gaussians.feature.square().sum().backward(retain_graph=True)
    assert nano.lseg.scratch.head1.weight.grad.abs().sum() > 0
    nano.zero_grad()
    (output.depth.sum() + output.pose_encodings.sum()).backward()
    assert all(parameter.grad is None for parameter in nano.lseg.parameters())
    nano.zero_grad()


def test_every_weight_learns(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = FF3R(FF3RConfig.nano())
    out = network(images[:, :2])
    parts = [*vars(out.gaussians).values(), out.depth, out.depth_confidence, out.pose_encodings]
    loss = sum(part.square().mean() for part in parts) + network.feature_decoder(torch.ones(32)).sum()
    loss.backward()
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_bfloat16_autocast_stays_close_and_outputs_stay_float32(
    nano: FF3R, images: torch.Tensor, output: NetworkOutput
) -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = nano(images)
    assert half.depth.dtype == half.pose_encodings.dtype == half.gaussians.feature.dtype == torch.float32
    torch.testing.assert_close(half.depth, output.depth, atol=0.02, rtol=0.02)
    torch.testing.assert_close(half.pose_encodings, output.pose_encodings, atol=0.02, rtol=0.02)


def test_forward_reads_no_value_back_to_the_host(nano: FF3R) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):  # raises where a tensor's value is asked for
        output = nano(torch.empty(1, 3, 3, 112, 112))
    assert output.depth.shape == (1, 3, 112, 112)


@pytest.mark.parametrize("lifting", [False, True])
def test_dense_views_are_rows_of_the_whole_output(lifting: bool) -> None:
    torch.manual_seed(0)
    network = FF3R(replace(FF3RConfig.nano(), decode_gaussians=not lifting)).eval()
    images, picks = torch.rand(2, 3, 3, 56, 84), torch.tensor([4, 0, 5])
    with torch.inference_mode():
        whole = network(images)
        frames = network.encode_frames(images, semantics=True, dense_views=picks)
        some = network.decode_window(images, frames, dense_views=picks)
    close = dict(rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(some.pose_encodings, whole.pose_encodings, **close)
    torch.testing.assert_close(some.tokens, whole.tokens, **close)
    for name in ("depth", "depth_confidence", "semantics", "lifted"):
        dense, full = getattr(some, name), getattr(whole, name)
        assert (dense is None) == (full is None)
        if full is not None:
            torch.testing.assert_close(dense, full.flatten(0, 1)[picks][None], **close)
    assert (some.gaussians is None) == (whole.gaussians is None) == lifting
    if some.gaussians is not None:
        for name, dense in vars(some.gaussians).items():
            torch.testing.assert_close(dense, getattr(whole.gaussians, name).flatten(0, 1)[picks][None], **close)


def test_lifting_mode_bypasses_what_nobody_trained(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = FF3R(replace(FF3RConfig.nano(), decode_gaussians=False)).eval()
    assert not [name for name, _ in network.named_parameters() if name.startswith(("fusion", "gaussian_head"))]
    with torch.inference_mode():
        output = network(images)
    assert output.gaussians is None
    unit = output.semantics / output.semantics.norm(dim=2, keepdim=True)
    expected = (unit.movedim(2, -1) @ network.feature_decoder.weight).movedim(-1, 2)
    torch.testing.assert_close(output.lifted, expected)


@pytest.mark.parametrize("config", [FF3RConfig.nano(), FF3RConfig.full(), replace(FF3RConfig(), sh_degree=2)])
def test_config_survives_json(config: FF3RConfig) -> None:
    assert FF3RConfig.from_json(config.to_json()) == config


def test_unknown_config_fields_are_named() -> None:
    values = json.loads(FF3RConfig.nano().to_json())
    values["lseg"]["vit"]["colour"] = "blue"
    with pytest.raises(ValueError, match=r"config\.lseg\.vit has the unknown fields colour"):
        FF3RConfig.from_json(json.dumps(values))

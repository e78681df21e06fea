"""The paper's objective on procedural rooms: a network that is right pays little, and every part learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ff3r_model.core.types import SH_C0
from ff3r_model.evaluation.held_out_rooms import held_out_window
from ff3r_model.gaussians.render import render
from ff3r_model.network.config import DPTConfig, FF3RConfig
from ff3r_model.network.decode import predict
from ff3r_model.network.gaussian_head import RawGaussians
from ff3r_model.network.model import FF3R, NetworkOutput
from ff3r_model.training.datasets.batches import TeacherTargets, TrainingBatch
from ff3r_model.training.datasets.room_views import RoomWindow
from ff3r_model.training.objectives.loss import ObjectiveError
from ff3r_model.training.objectives.paper import PaperConfig, PaperObjective, without_fusion
from ff3r_model.training.objectives.paper_losses import PaperWeights
from ff3r_model.training.objectives.warping import warping_loss

SIZE = (42, 56)
THIN = DPTConfig(channels=(8, 8, 8, 8), features=8, hidden=(8, 8))
PLAIN = PaperConfig(voxelization=False)


def tiny() -> FF3RConfig:
    """nano with narrow tokens."""
    nano = FF3RConfig.nano()
    return replace(
        nano,
        encoder=replace(nano.encoder, width=48, depth=1),
        lseg=replace(nano.lseg, vit=replace(nano.lseg.vit, width=48), channels=(8, 8, 8, 8), features=8),
        camera=replace(nano.camera, width=48),
        fusion=replace(nano.fusion, width=48),
        depth=THIN,
        gaussian=THIN,
    )


def network(seed: int = 0) -> FF3R:
    torch.manual_seed(seed)
    return FF3R(tiny())


class Perfect(FF3R):
    """Says what is true, whatever it is shown, with opaque Gaussians of the size of a pixel."""

    def __init__(self, truth: RoomWindow, poses: Tensor) -> None:
        super().__init__(tiny())
        self.truth, self.poses = truth, poses

    def forward(self, images: Tensor, semantics: bool = True) -> NetworkOutput:
        views = images.shape[1]
        depth = self.truth.depth[:, :views].clamp(min=0.01)
        one = torch.ones_like(depth[:, :, None])
        raw = RawGaussians(
            log_scale=(one * 0.5).log().repeat(1, 1, 3, 1, 1),
            quaternion=torch.cat([one, 0 * one, 0 * one, 0 * one], dim=2),
            harmonics=(images - 0.5) / SH_C0,
            opacity_logit=4 * one,
            confidence_logit=0 * one,
            feature=torch.sin((self.truth.classes[:, :views, None] + 1) * torch.arange(1.0, 33)[:, None, None]),
        )
        return NetworkOutput(
            self.poses[None, :, :views].repeat(4, 1, 1, 1), depth, 1 + one[:, :, 0], raw, None, None, one[:, :, 0]
        )


def batch(seeds: tuple[int, ...] = (3,), views: int = 3) -> TrainingBatch:
    """Windows of held-out rooms and the truth as teacher, with random features."""
    windows = [held_out_window(seed, views, SIZE) for seed in seeds]
    names = RoomWindow.__dataclass_fields__
    truth = RoomWindow(**{name: torch.cat([getattr(window, name) for window in windows]) for name in names})
    pose, (height, width) = truth.camera_from_world, SIZE
    fov = [2 * torch.atan(side / 2 / truth.intrinsics[..., axis, axis]) for side, axis in ((height, 1), (width, 0))]
    quaternion = torch.stack([xyzw(matrix) for matrix in pose[..., :3, :3].flatten(0, 1)]).unflatten(0, pose.shape[:2])
    generator = torch.Generator().manual_seed(1)
    targets = TeacherTargets(
        torch.cat([pose[..., :3, 3], quaternion, torch.stack(fov, dim=-1)], dim=-1),
        truth.depth,
        torch.rand(truth.depth.shape, generator=generator),
        torch.randn(len(seeds), views, 64, 6, 8, generator=generator),
    )
    return TrainingBatch(truth.images, tuple(str(i) for i in range(len(seeds) * views)), targets, truth)


def xyzw(matrix: Tensor) -> Tensor:
    """By the trace; good for turns well below 180°."""
    w = (1 + matrix.trace()).sqrt() / 2
    antisymmetric = torch.stack([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    return torch.cat([antisymmetric / (4 * w), w[None]])


@pytest.fixture(scope="module")
def window() -> TrainingBatch:
    return batch()


def terms_of(network: FF3R, batch: TrainingBatch, config: PaperConfig) -> dict[str, float]:
    torch.manual_seed(0)
    with torch.no_grad():
        return {name: float(value) for name, value in PaperObjective(config)(network, batch).items()}


def perfect(batch: TrainingBatch) -> Perfect:
    assert batch.truth is not None and batch.targets is not None
    return Perfect(batch.truth, batch.targets.pose_encodings)


@pytest.mark.parametrize("voxelization", [False, True])
def test_the_truth_costs_little_and_less_than_falsehoods(window: TrainingBatch, voxelization: bool) -> None:
    assert window.targets is not None
    config = PaperConfig(voxelization=voxelization)
    right = terms_of(perfect(window), window, config)
    assert right["camera"] < 1e-8 and right["depth"] < 0.02
    moved = perfect(window)
    moved.poses = window.targets.pose_encodings.clone()
    moved.poses[:, 1:, 0] += 0.2
    wrong = terms_of(moved, window, config)
    assert right["rgb"] < 0.85 * wrong["rgb"] and right["depth"] < 0.5 * wrong["depth"]
    assert right["warp"] < 0.5 * wrong["warp"] and wrong["camera"] == pytest.approx(0.5 * 0.2**2 * 2 / 27, rel=1e-3)


def test_views_that_the_network_does_not_see_are_rendered_at_the_teachers_cameras(window: TrainingBatch) -> None:
    config = replace(PLAIN, target_views=1)
    right = terms_of(perfect(window), window, config)
    assert window.targets is not None
    lost = window.targets.pose_encodings.clone()
    lost[:, -1, 2] -= 9
    wrong = terms_of(perfect(window), replace(window, targets=replace(window.targets, pose_encodings=lost)), config)
    assert right["rgb"] < 0.8 * wrong["rgb"] and right["camera"] < 1e-8 > wrong["camera"]


def test_a_batch_is_the_mean_of_its_windows() -> None:
    both, parts = batch((3, 4)), [batch((3,)), batch((4,))]
    together = terms_of(perfect(both), both, PLAIN)
    alone = [terms_of(perfect(part), part, PLAIN) for part in parts]
    for part, index in zip(parts, range(2), strict=True):
        assert part.targets is not None and both.targets is not None
        assert torch.equal(part.targets.depth[0], both.targets.depth[index])
    for name in ("rgb", "warp", "camera"):  # depth and feature have random confidences and targets
        assert together[name] == pytest.approx(sum(terms[name] for terms in alone) / 2, abs=1e-6)


def test_switches_choose_the_terms_and_the_total_is_their_weighted_sum(window: TrainingBatch) -> None:
    student = network()
    full = terms_of(student, window, PLAIN)
    assert set(full) == {"rgb", "feature", "warp", "depth", "camera", "total"}
    weights = PaperWeights()
    expected = sum(getattr(weights, name) * value for name, value in full.items() if name != "total")
    assert full["total"] == pytest.approx(expected, rel=1e-5)
    assert set(terms_of(student, window, replace(PLAIN, warping=False, distillation=False))) == {
        "rgb",
        "feature",
        "total",
    }
    assert terms_of(student, window, replace(PLAIN, render_views=1))["rgb"] != pytest.approx(full["rgb"])
    with pytest.raises(ValueError, match="needs a teacher"):
        PaperObjective(PLAIN)(student, replace(window, targets=None))


def test_the_objective_is_the_weighted_sum_of_losses_computed_by_hand() -> None:
    """Of two windows, from predictions, renderings and pixels; random pairs are all pairs of three views."""
    both, student = batch((3, 4)), network()
    assert both.targets is not None
    weights = PaperWeights(rgb=2.0, warp=0.3)
    torch.manual_seed(0)
    terms = PaperObjective(replace(PLAIN, weights=weights))(student, both)
    output = student(both.images)
    found: dict[str, list[Tensor]] = {"rgb": [], "feature": [], "depth": [], "warp": []}
    for index, images in enumerate(both.images):
        # Predict and render the window by itself.
        prediction = predict(student(images[None]))
        seen = render(prediction.gaussians, prediction.cameras, *SIZE)
        colors = seen.colors.permute(0, 3, 1, 2)
        taught, features = both.targets.depth[index], both.targets.features[index]
        ssim = structural_similarity_index_measure(colors, images, data_range=1.0)
        found["rgb"].append((colors - images).abs().mean() + 0.05 * (1 - ssim))
        # Compare features in the text's space, at the teacher's resolution.
        cells = seen.features.permute(0, 3, 1, 2).unflatten(2, (6, 7)).unflatten(4, (8, 7)).mean((3, 5))
        words = torch.einsum("tc,vcij->vtij", student.feature_decoder.weight, cells)
        found["feature"].append((1 - torch.cosine_similarity(words, features, dim=1)).mean())
        # Compare depth where the teacher is most confident.
        confidence = both.targets.depth_confidence[index][taught > 0]
        floor = confidence.sort(descending=True).values[round(0.7 * len(confidence)) - 1]
        sure = (taught > 0) & (both.targets.depth_confidence[index] >= floor)
        found["depth"].append((seen.depth - taught)[sure].square().mean())
        compact = prediction.gaussians.features.view(3, *SIZE, -1).permute(0, 3, 1, 2)
        pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])
        found["warp"].append(warping_loss(compact, prediction.depth, prediction.cameras, pairs, 0.05))
    expected = {name: (values[0] + values[1]) / 2 for name, values in found.items()}
    # Compare cameras, the later iterations of the camera head more.
    errors = torch.nn.functional.huber_loss(
        output.pose_encodings, both.targets.pose_encodings.expand_as(output.pose_encodings), reduction="none"
    ).mean((1, 2, 3))
    shares = torch.tensor([0.6 ** (len(errors) - 1 - k) for k in range(len(errors))])
    expected["camera"] = (shares * errors).sum() / shares.sum()
    assert (output.pose_encodings[..., 3:7] * both.targets.pose_encodings[..., 3:7]).sum(-1).min() > 0, "signs agree"
    for name, value in expected.items():
        torch.testing.assert_close(
            terms[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    scale = {"rgb": 2.0, "feature": 0.1, "depth": 1.0, "warp": 0.3, "camera": 10.0}
    assert list(terms) == [*scale, "total"]
    assert torch.equal(terms["total"], torch.stack([scale[name] * terms[name] for name in scale]).sum())


def test_every_part_of_the_network_learns_and_the_loss_falls(window: TrainingBatch) -> None:
    student, objective = network(), PaperObjective(PaperConfig(render_views=2))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    totals = []
    for _ in range(6):
        torch.manual_seed(0)
        total = objective(student, window)["total"]
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 0.5)
        optimizer.step()
        totals.append(float(total.detach()))
    still = {name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()}
    allowed = ("aggregator.patch_embed.mask_token", "aggregator.patch_embed.norm", "lseg.")
    assert not {name for name in still if not name.startswith(allowed)}
    assert totals[-1] < 0.92 * totals[0], totals


def test_without_fusion_geometry_tokens_pass_unchanged() -> None:
    student = network()
    without_fusion(student)
    tokens, semantics = torch.randn(2, 5, 2 * student.config.width), torch.randn(2, 7, student.config.lseg.vit.width)
    assert torch.equal(student.fusion(tokens, semantics), tokens)
    assert not any(parameter.requires_grad for parameter in student.fusion.parameters())
    bare = FF3R(replace(student.config, fusion_residual=False))
    with pytest.raises(ObjectiveError, match="residual"):
        without_fusion(bare)

"""Preparing images: sizes, exact maps back, agreement with an independent resize, speed-independent behaviour."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3r_model.core import geometry
from ff3r_model.frames.prepare import LEAST_SIDE, MAX_STRETCH, Crop, ImageError, plan_crop, prepare, unprepare

sides = st.integers(20, 3000)


def from_original(crop: Crop, pixels: torch.Tensor) -> torch.Tensor:
    """The prepared image's pixels from the original's, by the crop's rectangle alone."""
    scale = torch.tensor([crop.width / crop.crop_width, crop.height / crop.crop_height], dtype=pixels.dtype)
    return (pixels - torch.tensor([crop.left, crop.top], dtype=pixels.dtype)) * scale


@settings(max_examples=300, deadline=None)
@given(sides, sides, st.sampled_from([(112, 14), (448, 14), (96, 16), (113, 14)]))
def test_any_aspect_keeps_patches_shape_and_content(height: int, width: int, target: tuple[int, int]) -> None:
    long_side, patch = target
    if max(height, width) > 4 * min(height, width):
        with pytest.raises(ImageError, match=f"{width}x{height}"):
            plan_crop(height, width, long_side, patch)
        return
    crop = plan_crop(height, width, long_side, patch)
    most = long_side // patch
    assert math.ceil(LEAST_SIDE * most) * patch <= max(crop.width, crop.height) <= most * patch
    assert crop.width % patch == 0 and crop.height % patch == 0 and min(crop.width, crop.height) >= patch
    assert crop.left >= 0 and crop.left + crop.crop_width <= width
    assert crop.top >= 0 and crop.top + crop.crop_height <= height
    assert crop.crop_width == width or crop.crop_height == height  # as much as fits: one side is whole
    assert abs(2 * crop.left + crop.crop_width - width) <= 1 and abs(2 * crop.top + crop.crop_height - height) <= 1
    # Stretched by no more than is allowed, and the half pixel that the cut to whole pixels may cost.
    step_x, step_y = crop.step
    assert step_x * crop.height * (1 - 1e-9) <= (1 + MAX_STRETCH) * crop.crop_height + max(1, crop.height / crop.width)
    assert step_y * crop.width * (1 - 1e-9) <= (1 + MAX_STRETCH) * crop.crop_width + max(1, crop.width / crop.height)


@pytest.mark.parametrize("long_side", [112, 448])
@pytest.mark.parametrize(
    "size", [(1080, 1920), (720, 1280), (480, 640), (480, 848), (1350, 1080), (1920, 1080), (2048, 3072), (720, 720)]
)
def test_pictures_of_common_shapes_are_seen_whole(size: tuple[int, int], long_side: int) -> None:
    """Nothing is cut but two percent, and points project into the prepared image where the picture shows them."""
    height, width = size
    dots = torch.tensor([[0.25, 0.3], [0.5, 0.5], [0.7, 0.65]], dtype=torch.float64) * torch.tensor([width, height])
    v, u = np.mgrid[:height, :width]
    picture = sum(np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * (width / 60) ** 2)) for x, y in dots.tolist())
    image = torch.from_numpy((200 * picture).astype(np.uint8))[..., None].repeat(1, 1, 3)
    original = torch.tensor([[0.9 * width, 0, width / 2], [0, 0.9 * width, height / 2], [0, 0, 1]], dtype=torch.float64)
    prepared, intrinsics, crop = prepare(image, original, long_side, 14)
    assert crop.crop_width * crop.crop_height >= 0.98 * width * height
    # The points at two metres that the dots show, found again by the centre of mass of what is bright around them.
    depth = torch.full((3,), 2.0, dtype=torch.float64)
    rays = torch.cat([dots + 0.5, torch.ones(3, 1, dtype=torch.float64)], dim=1) @ torch.linalg.inv(original).T
    assert intrinsics is not None
    pixels, _ = geometry.project(rays * depth[:, None], intrinsics)
    grey = prepared.mean(0).double()
    grid = geometry.pixel_grid(*grey.shape, grey)
    for pixel in pixels:
        weight = grey * ((grid - pixel).norm(dim=2) < crop.width / 15)
        found = (grid * weight[..., None]).sum((0, 1)) / weight.sum()
        torch.testing.assert_close(found, pixel, atol=0.15, rtol=0)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 1001), (1080, 1080), (60, 80), (717, 1283)])
def test_crop_maps_back_exactly(size: tuple[int, int]) -> None:
    crop = plan_crop(*size, 112, 14)
    corners = torch.tensor([[0.0, 0.0], [crop.width, crop.height]], dtype=torch.float64)
    expected = torch.tensor(
        [[crop.left, crop.top], [crop.left + crop.crop_width, crop.top + crop.crop_height]], dtype=torch.float64
    )
    torch.testing.assert_close(crop.to_original(corners), expected, rtol=0, atol=1e-12)
    pixels = torch.rand(5, 7, 2, dtype=torch.float64) * 100
    torch.testing.assert_close(from_original(crop, crop.to_original(pixels)), pixels, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(480, 640), (717, 1283), (900, 300)])
def test_intrinsics_see_the_same_point_in_the_same_place(size: tuple[int, int]) -> None:
    height, width = size
    original = torch.tensor([[500.0, 0, 311.0], [0, 510.0, 260.5], [0, 0, 1]], dtype=torch.float64)
    image = torch.zeros(height, width, 3, dtype=torch.uint8)
    _, intrinsics, crop = prepare(image, original, 112, 14)
    points = torch.tensor([[0.3, -0.2, 2.0], [-0.5, 0.4, 3.0]], dtype=torch.float64)
    pixels, _ = geometry.project(points, original)
    assert intrinsics is not None
    torch.testing.assert_close(geometry.project(points, intrinsics)[0], from_original(crop, pixels))


def test_content_lands_where_the_crop_says() -> None:
    """A bright square, found again by its centre of mass in the prepared image."""
    image = torch.zeros(717, 1283, 3, dtype=torch.uint8)
    image[200:280, 800:900] = 255
    prepared, _, crop = prepare(image, None, 448, 14)
    weight = prepared.mean(0).double()
    grid = geometry.pixel_grid(*weight.shape, weight)
    centre = (grid * weight[..., None]).sum((0, 1)) / weight.sum()
    expected = torch.tensor([850.0, 240.0], dtype=torch.float64)
    torch.testing.assert_close(crop.to_original(centre), expected, atol=0.3, rtol=0)


def test_agrees_with_an_independent_antialiased_resize() -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8), (0, 0), 9)
    spread = ((smooth.astype(np.float32) - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    prepared, _, _ = prepare(torch.from_numpy(spread), None, 112, 14)
    area = cv2.resize(spread, (112, 84), interpolation=cv2.INTER_AREA)
    assert prepared.shape == (3, 84, 112)
    assert (unprepare(prepared).int() - torch.from_numpy(area).int()).abs().float().mean() < 1.5


def test_fine_stripes_do_not_alias() -> None:
    """One-pixel stripes are finer than the output's pixels: they must come out grey, not as false bands."""
    stripes = torch.zeros(480, 640, 3, dtype=torch.uint8)
    stripes[:, ::2] = 255
    prepared, _, _ = prepare(stripes, None, 112, 14)
    assert (prepared - 0.5).abs()[:, :, 1:-1].max() < 0.04


def test_unprepare_undoes_the_scaling() -> None:
    image = torch.randint(0, 256, (84, 112, 3), dtype=torch.uint8)
    prepared, _, crop = prepare(image, None, 112, 14)
    assert crop.step == (1.0, 1.0)
    assert torch.equal(unprepare(prepared), image)


@pytest.mark.parametrize("size", [(0, 640), (480, 0), (100, 401), (401, 100)])
def test_refuses_with_the_offending_size(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[1]}x{size[0]}"):
        prepare(torch.zeros(*size, 3, dtype=torch.uint8), None, 112, 14)


def test_refuses_a_target_smaller_than_a_patch() -> None:
    with pytest.raises(ImageError, match="long_side=10"):
        prepare(torch.zeros(48, 64, 3, dtype=torch.uint8), None, 10, 14)

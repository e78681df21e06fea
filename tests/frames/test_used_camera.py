"""What a run takes its camera for, against the crop's own maps."""

from __future__ import annotations

import pytest
import torch

from ff3r_model.frames.prepare import plan_crop
from ff3r_model.frames.used_camera import UsedCamera


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1920, 1080), (1080, 1920), (333, 500)])
@pytest.mark.parametrize("long_side", [112, 448])
def test_an_estimate_is_in_pixels_of_the_images_as_they_come(width: int, height: int, long_side: int) -> None:
    crop = plan_crop(height, width, long_side, 14)
    camera = UsedCamera(width, height, crop, None)
    assert not camera.estimated and camera.intrinsics is None
    found = camera.with_estimate(0.82, 0.02)
    assert found.estimated and found.intrinsics is not None
    seen = crop.intrinsics(found.intrinsics)
    # The picture that is seen has square pixels; the network's image of it may be stretched.
    focal = 0.82 * max(crop.crop_width, crop.crop_height)
    expected = [focal * crop.width / crop.crop_width, focal * crop.height / crop.crop_height]
    assert seen.diagonal()[:2].tolist() == pytest.approx(expected)
    assert seen[:2, 2].tolist() == pytest.approx([crop.width / 2, crop.height / 2])


def test_words_say_where_it_comes_from() -> None:
    crop = plan_crop(480, 640, 112, 14)
    camera = UsedCamera(640, 480, crop, None)
    assert camera.with_estimate(0.8219, 0.02).described("-") == "526 of 640x480 pixels, estimated within 2 %"
    assert camera.described("-").startswith("not known, and nothing could be estimated")
    given = UsedCamera(640, 480, crop, torch.tensor([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]]))
    assert given.described("as stated") == "525 of 640x480 pixels, as stated"

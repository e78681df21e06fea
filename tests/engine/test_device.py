"""Devices by name: what this machine cannot compute on is refused in one line."""

from __future__ import annotations

import pytest
import torch

from ff3r_model.engine.device import DeviceError, device_named


@pytest.mark.parametrize("name", ["toaster", "", "meta", "cuda:99", "xla", "hpu", "privateuseone", "cpu:x"])
def test_devices_that_cannot_compute_here_are_one_line(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{name}' cannot be used here, auto takes") as refusal:
        device_named(name)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 250


def test_the_first_gpu_is_there_or_refused() -> None:
    if torch.cuda.is_available():
        assert device_named("cuda").type == "cuda"
    else:
        with pytest.raises(DeviceError, match="device 'cuda' cannot be used here, auto takes"):
            device_named("cuda")
    assert device_named("cpu") == torch.device("cpu")

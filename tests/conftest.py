"""For all tests: shapes and types checked at every call, few threads, a ROS domain of our own, real imagery if any."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch is imported: more threads only fight over small tensors

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

install_import_hook("ff3r_model", "beartype.beartype")

ROOT = Path(__file__).resolve().parent.parent

# Fixtures that hypothesis uses again for each example hold no state of an example here.
_CHECKS = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50, suppress_health_check=_CHECKS)
settings.register_profile("fuzz", deadline=None, max_examples=1000, suppress_health_check=_CHECKS)

os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real videos and bags, which is not part of the repository; skips where it is missing."""
    folder = Path(os.environ.get("FF3R_TEST_DATA", ROOT.parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real imagery: {folder} does not exist (FF3R_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def nano_export(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Folders of nano's ONNX graphs by precision."""
    from tests.support.exports import Exports

    return Exports(tmp_path_factory.mktemp("nano_export"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of nano's shapes that has learned nothing."""
    import torch

    from ff3r_model.network import FF3R, FF3RConfig
    from ff3r_model.network.checkpoint import save_checkpoint
    from ff3r_model.network.text_encoder import TextConfig, TextEncoder

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_checkpoint(path, FF3R(FF3RConfig.nano()), TextEncoder(TextConfig.nano()), mode="trained", card={})
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless -m chooses."""
    if config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if not item.get_closest_marker("long")]

"""TensorRT-RTX itself parses our graphs and builds plans of them, which it can without a GPU; running one needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from ff3r_model.engine.device import SideStream
from ff3r_model.engine.onnx.manifest import GRAPHS, graph_path
from ff3r_model.engine.tensorrt.build import Profile, build_plan
from ff3r_model.engine.tensorrt.library import TensorRTError, TensorRTLibrary, load_library
from ff3r_model.engine.tensorrt.plan_runner import BadPlan, PlanRunner

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is on PyPI for Linux on x86-64 alone")

LOWEST = {"frames": 1, "window": 2}


@pytest.fixture(scope="module")
def library() -> TensorRTLibrary:
    return load_library(("tensorrt_rtx",))


@pytest.fixture(scope="module")
def plans(
    library: TensorRTLibrary, nano_export: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    """Plans by precision and graph."""
    folder = tmp_path_factory.mktemp("plans")
    wanted = [(precision, graph) for precision in ("float16", "float32") for graph in GRAPHS]
    return {
        (precision, graph): built(library, graph, nano_export[precision], folder / f"{graph}-{precision}.plan")
        for precision, graph in wanted
    }


def built(library: TensorRTLibrary, graph: str, exported: Path, path: Path) -> Path:
    """One plan, in a file."""
    shares: list[float] = []
    profile = Profile(LOWEST[graph], 8, 64)
    plan = build_plan(library, graph_path(exported, graph), [profile], lambda _, share: shares.append(share))
    assert shares and max(shares) == 1.0, "the builder reports its progress"
    path.write_bytes(plan)
    return path


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_plans_of_nano(plans: dict[tuple[str, str], Path], precision: str, graph: str) -> None:
    size = plans[precision, graph].stat().st_size
    assert size > 1e6, "the weights alone take more"
    assert precision == "float32" or size < plans["float32", graph].stat().st_size


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the plan may be fine")
def test_a_plan_without_a_gpu_is_refused_with_a_reason(
    library: TensorRTLibrary, plans: dict[tuple[str, str], Path]
) -> None:
    with pytest.raises(BadPlan, match=r"TensorRT-RTX .* does not accept .*frames-float16\.plan"):
        PlanRunner(library, plans["float16", "frames"], SideStream(torch.device("cpu")))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only an NVIDIA GPU runs a plan; no such machine has yet")
def test_a_plan_says_what_onnxruntime_says(
    library: TensorRTLibrary, plans: dict[tuple[str, str], Path], nano_export: Mapping[str, Path]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    stream = SideStream(torch.device(0))
    runner = PlanRunner(library, plans["float32", "frames"], stream)
    session = onnxruntime.InferenceSession(graph_path(nano_export["float32"], "frames"))
    for views in (3, 3, 3, 7):
        images = torch.rand(views, 3, 56, 84)
        with stream.entered():
            got = {name: tensor.cpu() for name, tensor in runner({"images": images.to(stream.device)}).items()}
        for value, expected in zip(session.get_outputs(), session.run(None, {"images": images.numpy()}), strict=True):
            torch.testing.assert_close(got[value.name], torch.from_numpy(expected), rtol=2e-3, atol=2e-3)


def test_what_is_no_graph_is_refused_with_the_parsers_reason(library: TensorRTLibrary, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    with pytest.raises(TensorRTError, match=r"cannot read .*bad\.onnx: .*(?i:parse|model)"):
        build_plan(library, tmp_path / "bad.onnx", [Profile(1, 2, 3)])

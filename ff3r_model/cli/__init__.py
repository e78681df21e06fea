"""The `ff3r` command. One function per subcommand; heavy modules load inside them, so that help comes at once."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from ff3r_model import __version__
from ff3r_model.cli import evaluate as evaluating
from ff3r_model.core.errors import UserError

EXIT_ERROR = 2
"""Something that the user can mend: said in one line."""
EXIT_INTERRUPTED = 130


def _reconstruct(
    source: Positional[Path],
    output: Annotated[Path, arg(aliases=["-o"])],
    views: int = 8,
    overlap: int = 4,
    stride: int = 1,
    min_motion: float = 0.04,
    camera_height: float | None = None,
    long_side: int | None = None,
    topic: str | None = None,
    weights: Path | None = None,
    device: str = "auto",
) -> None:
    """Build a semantic map from a video, a folder of images, or a ROS bag.

    Writes traj_tum.txt (camera poses), cloud.ply (3D Gaussians), map.ff3r.safetensors (for query and view) and
    topdown.png into the output folder.

    Args:
        source: Video file, folder of images, rosbag2 folder, .mcap, .db3 or .bag.
        output: Folder to write to; made if need be.
        views: Views per window of the network, 2 to 64.
        overlap: Keyframes that each window shares with the one before.
        stride: Use every n-th frame.
        min_motion: Parallax between keyframes, as a share of the picture's long side; 0 keeps every frame.
        camera_height: Metres of the camera above the floor; makes the map metric.
        long_side: Pixels of the network's images along their long side; what the checkpoint is meant for if not given.
        topic: Image topic of a bag; the one with the most colour images if not given.
        weights: Checkpoint; the nano weights of the package if not given.
        device: Where the network runs: auto, cpu, or another of torch's names.
    """
    from ff3r_model.cli import reconstruct as reconstruction

    plan = reconstruction.Plan(
        source, output, views, overlap, stride, min_motion, camera_height, long_side, topic, weights, device
    )
    print(reconstruction.reconstruct(plan))


def _query(
    map: Positional[Path],
    text: Positional[str],
    output: Annotated[Path | None, arg(aliases=["-o"])] = None,
    threshold: float | None = None,
    top: int = 5,
    weights: Path | None = None,
) -> None:
    """Find a text in a map.

    Args:
        map: Map file that `ff3r reconstruct` wrote.
        text: What to look for, such as "red chair".
        output: Picture to write, the map from above with what was found.
        threshold: Score from which a voxel matches, 0 to 1.
        top: How many places to list.
        weights: Checkpoint whose words to use; it must be the one that the map was made with.
    """
    from ff3r_model.cli import query as asking

    print(asking.ask(map, text, picture=output, threshold=threshold, top=top, weights=weights))


def _view(map: Positional[Path], port: int = 8080, host: str = "127.0.0.1", weights: Path | None = None) -> None:
    """Show a map in a web browser, with a text box for queries, until Ctrl-C.

    Args:
        map: Map file that `ff3r reconstruct` wrote.
        port: Port to serve on; the next free one where it is taken.
        host: Address to serve on; 0.0.0.0 lets everybody on the network look.
        weights: Checkpoint whose words to use; it must be the one that the map was made with.
    """
    from ff3r_model.cli import query as asking

    asking.view(map, host=host, port=port, weights=weights)


def _convert(
    output: Annotated[Path, arg(aliases=["-o"])],
    vggt: Path | None = None,
    lseg: Path | None = None,
    clip: Path | None = None,
    ff3r: Path | None = None,
    channels: int = 64,
    precision: Literal["float32", "float16", "bfloat16"] = "float32",
) -> None:
    """Make a checkpoint of the public weights of VGGT-1B and LSeg, or check and rewrite one of FF3R's own.

    Nothing in the given files is executed. The new file runs in lifting mode: VGGT's cameras and depth, LSeg's
    semantics, no FF3R training. Mind the terms of the public weights; VGGT-1B's are non-commercial.

    Args:
        output: Checkpoint to write (.safetensors).
        vggt: VGGT-1B's model.pt or model.safetensors.
        lseg: LSeg's demo_e200.ckpt, which also holds CLIP's text tower.
        clip: CLIP ViT-B/32's weights under OpenAI's names, in place of those in LSeg's file.
        ff3r: A checkpoint of FF3R's own, in place of all the others.
        channels: Width of the compact semantic features; 512 loses nothing and makes maps larger.
        precision: Of the stored weights; the narrower ones halve the file.
    """
    from ff3r_model.cli import convert as converting

    print(converting.run(converting.Plan(output, vggt, lseg, clip, ff3r, channels, precision)))


def _train(
    output: Annotated[Path, arg(aliases=["-o"])],
    images: tuple[Path, ...] = (),
    dl3dv: Path | None = None,
    scannet: Path | None = None,
    rooms: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    weights: Path | None = None,
    teacher: Path | None = None,
    fresh: bool = False,
    text_targets: Path | None = None,
    part: Literal["all", "geometry", "words"] | None = None,
    cache: Path | None = None,
    cache_gigabytes: float = 50.0,
    config: Path | None = None,
    views: tuple[int, ...] = (),
    total_views: int | None = None,
    long_side: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    resume: bool = False,
) -> None:
    """Train a network on footage of your own, on public data sets, or on synthetic rooms.

    From images alone, without poses, depth or labels: what the network renders should look like the images, and a
    teacher, by default the network's own starting weights, keeps cameras, depth and words from drifting. Writes
    pictures/, log.jsonl, tensorboard/, a resumable state and checkpoint.safetensors into the output folder.

    Args:
        output: Folder of the run; made if need be.
        images: Folders of images, videos, or folders of such folders.
        dl3dv: Folder of DL3DV-10K scenes (images_4/ and transforms.json).
        scannet: Folder of ScanNet scans, exported (color/*.jpg).
        rooms: Folder of rendered synthetic rooms, with whose exact truth the network is taught instead.
        minutes: Budget in minutes; 10 if neither it nor steps is given.
        steps: Budget in steps.
        weights: Checkpoint to start from; the nano weights of the package if not given.
        teacher: Checkpoint to learn cameras, depth and features from; the one to start from if not given.
        fresh: Start from random weights in the shape of those to start from.
        text_targets: Embeddings of the rooms' words; the text tower's own if not given.
        part: What of the network rooms teach: all of it, or faster by itself geometry or words.
        cache: Folder for what the teacher said; in the output folder if not given.
        cache_gigabytes: How much of it is kept.
        config: JSON file with all other values, as config.json of an earlier run.
        views: Views of a window, drawn from these.
        total_views: Views per step and process.
        long_side: Pixels of the images along their long side.
        learning_rate: Highest learning rate.
        seed: Of every random choice.
        workers: Processes that read images ahead.
        device: Where to train: auto, cpu, or another of torch's names.
        resume: Go on with the run in the output folder.
    """
    from ff3r_model.cli import train as training

    material = training.Material(
        images, dl3dv, scannet, rooms, weights, teacher, fresh, text_targets, cache, cache_gigabytes
    )
    plan = training.Plan(
        output,
        material,
        minutes,
        steps,
        config,
        part,
        long_side,
        views,
        total_views,
        learning_rate,
        seed,
        workers,
        device,
        resume,
    )
    print(training.train(plan))


def _evaluate(command: Annotated[evaluating.Command, arg(name="")]) -> None:
    """Measure a checkpoint against ground truth: figures, tables, pictures."""
    print(command())


def _export(
    checkpoint: Positional[Path],
    output: Annotated[Path, arg(aliases=["-o", "--out"])],
    image_size: tuple[int, int] = (640, 480),
    long_side: int | None = None,
    precision: Literal["float32", "float16"] = "float16",
    attention: Literal["fused", "decomposed"] = "fused",
) -> None:
    """Write the network as two ONNX graphs: frames.onnx (each view alone) and window.onnx (what views say together).

    The number of views stays open, 2 to 64; the images' size is fixed. Needs the packages of the extra "export".

    Args:
        checkpoint: Weights to export.
        output: Folder to write; replaced if it is there.
        image_size: Width and height of the camera's images; the network's own size follows as in the node.
        long_side: Pixels of the network's images along their long side; what the checkpoint is meant for if not given.
        precision: Of the matrix products; norms and the camera and depth heads stay float32.
        attention: fused: one operator, opset 23, for TensorRT 10.14 or later and TensorRT-RTX; decomposed: for older.
    """
    from ff3r_model.cli import export as exporting

    print(exporting.run_export(exporting.ExportPlan(checkpoint, output, image_size, long_side, precision, attention)))


def _build_engine(
    exported: Positional[Path],
    views: int = 8,
    max_views: int = 64,
    cache: Path | None = None,
    device: str = "auto",
) -> None:
    """Build a TensorRT plan of what `ff3r export` wrote, for the GPU of this machine.

    The node with the same weights, camera and views finds it and starts at once. Takes minutes to an hour.

    Args:
        exported: Folder that `ff3r export` wrote.
        views: Views per window that the plan is tuned for.
        max_views: Largest window that it takes.
        cache: Folder of the plans; ~/.cache/ff3r/engines if not given.
        device: The GPU: auto, or one of torch's names.
    """
    from ff3r_model.cli import export as exporting

    print(exporting.run_build(exporting.BuildPlan(exported, views, max_views, cache, device)))


COMMANDS: dict[str, Callable[..., None]] = {
    "reconstruct": _reconstruct,
    "query": _query,
    "view": _view,
    "convert": _convert,
    "eval": _evaluate,
    "train": _train,
    "export": _export,
    "build-engine": _build_engine,
}
"""Every subcommand: its name and the function whose signature and docstring make its options and help."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `ff3r`. Errors that the user can mend are one line and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"ff3r {__version__}")
        return 0
    logging.basicConfig(level=logging.WARNING, format="ff3r: %(message)s")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # unreadable files are our business to report
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="ff3r", args=arguments or ["--help"], sort_subcommands=False
        )
    except KeyboardInterrupt:
        print("ff3r: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (UserError, OSError) as error:
        print(f"ff3r: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0

"""Windows of recordings with ground truth: 7-Scenes, TUM RGB-D, ScanNet, and pictures with poses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.types import Cameras, Frame
from ff3r_model.evaluation.manifests import Split, SplitError
from ff3r_model.evaluation.posed_pictures import PosedPictures, is_posed
from ff3r_model.evaluation.sample import Sample, TrueViews
from ff3r_model.evaluation.vocabulary import Vocabulary, of_classes
from ff3r_model.frames.intrinsics import StatedCamera
from ff3r_model.frames.prepare import prepare, prepare_depth, prepare_picture
from ff3r_model.frames.rgbd import RgbdSource, is_rgbd
from ff3r_model.training.datasets.base import Scene, View
from ff3r_model.training.datasets.scannet import CLASSES, open_scannet


class RgbdScene:
    """A 7-Scenes or TUM sequence as a scene of views."""

    def __init__(self, folder: Path, depth_unit: float | None = None) -> None:
        """`depth_unit`: metres per step of the depth images, where it is not the layout's. Raises RgbdError."""
        self.source = RgbdSource(folder, depth_unit)
        self.name = folder.name

    def __len__(self) -> int:
        return len(self.source.entries)

    def view(self, index: int) -> View:
        """One frame with its truth. Raises RgbdError, ImageFileError."""
        entry = self.source.entries[index]
        frame = self.source.read(entry)
        return View(str(entry.color), frame.image, frame.intrinsics, entry.world_from_camera, frame.depth)


class StatedScene:
    """A scene whose views get the intrinsics that a user states."""

    def __init__(self, scene: Scene, camera: StatedCamera) -> None:
        self._scene, self._camera, self.name = scene, camera, scene.name

    def __len__(self) -> int:
        return len(self._scene)

    def view(self, index: int) -> View:
        """The view with the stated camera. Raises IntrinsicsError where that cannot be of its image."""
        view = self._scene.view(index)
        frame = self._camera.of(Frame(view.image, 0))
        return replace(view, image=frame.image, intrinsics=frame.intrinsics)


def open_scenes(data: Path, depth_unit: float | None = None) -> list[Scene]:
    """The sequences in a folder, or the one that it is. Raises SourceError, DataError.

    `depth_unit`: metres per step of RGB-D sequences' depth images, where it is not their layout's.
    """
    if not data.is_dir():
        raise SplitError(f"{data} is no folder of recordings")
    folders = [data] if _is_sequence(data) else sorted(path for path in data.glob("*") if _is_sequence(path))
    if not folders:
        return list(open_scannet(data, truth=True))
    return [RgbdScene(folder, depth_unit) if is_rgbd(folder) else PosedPictures(folder) for folder in folders]


def _is_sequence(path: Path) -> bool:
    return path.is_dir() and (is_rgbd(path) or is_posed(path))


def frame_numbers(scene: Scene) -> Sequence[int]:
    """The number in each frame's file name, which jumps where frames are left out. Raises SplitError without any."""
    if isinstance(scene, RgbdScene):
        names = [entry.color.name for entry in scene.source.entries]
    elif isinstance(scene, PosedPictures):
        names = [file.name for file in scene.files]
    else:
        return range(len(scene))
    found = [re.search(r"\d+", name) for name in names]
    numbers = [int(match.group()) for match in found if match]
    if len(numbers) != len(names) or any(after <= before for before, after in itertools.pairwise(numbers)):
        raise SplitError(f"{scene.name}: file names have no numbers that grow, such as {names[0]!r}: no --by-number")
    return numbers


def vocabularies() -> list[Vocabulary]:
    """What is asked of recordings: the paper's eight classes of ScanNet, where a recording has labels."""
    return [of_classes(CLASSES)]


def samples(scenes: Sequence[Scene], splits: Sequence[Split], long_side: int, patch: int) -> Iterator[Sample]:
    """The windows of a manifest, with a progress bar. Raises SplitError for scenes or frames that are not there."""
    by_name = {scene.name: scene for scene in scenes}
    for split in tqdm(splits, desc="recorded windows", unit="window", disable=None):
        scene = by_name.get(split.scene)
        if scene is None:
            raise SplitError(f"the manifest asks for {split.scene!r}; the data has {', '.join(sorted(by_name))}")
        if max(*split.context, *split.targets) >= len(scene):
            raise SplitError(f"{split.scene} has {len(scene)} frames; the manifest asks for {split}")
        yield sample(scene, split, long_side, patch)


def sample(scene: Scene, split: Split, long_side: int, patch: int) -> Sample:
    """One window at the network's size, in metres, in the frame of its first camera."""
    context = [_known(scene, index) for index in split.context]
    targets = [_known(scene, index) for index in split.targets]
    first = context[0].world_from_camera
    assert first is not None
    name = f"{scene.name} {split.context[0]}"
    held_out = _true_views(targets, first, long_side, patch) if targets else None
    return Sample(name, _true_views(context, first, long_side, patch), held_out, 1.0)


def _known(scene: Scene, index: int) -> View:
    view = scene.view(index)
    if view.world_from_camera is None or view.intrinsics is None:
        raise SplitError(f"{view.id} has no pose or no intrinsics, so it cannot be in a window; remake the manifest")
    return view


def _true_views(views: Sequence[View], first: Tensor, long_side: int, patch: int) -> TrueViews:
    images, pictures, intrinsics, depths, labels = [], [], [], [], []
    for view in views:
        image, matrix, crop = prepare(view.image, view.intrinsics, long_side, patch)
        size = view.image.shape[:2]
        assert matrix is not None
        images.append(image)
        pictures.append(prepare_picture(view.image, crop))
        intrinsics.append(matrix)
        depths.append(prepare_depth(torch.zeros(size) if view.depth is None else view.depth, crop))
        known = torch.full(size, -1.0) if view.labels is None else view.labels.float()
        labels.append(prepare_depth(known, crop).long())
    poses = torch.stack([view.world_from_camera for view in views if view.world_from_camera is not None])
    camera_from_first = (invert_rigid(poses.double()) @ first.double()).float()
    cameras = Cameras(camera_from_first, torch.stack(intrinsics))
    classes = torch.stack(labels)
    colors, sharp = torch.full_like(classes, -1), torch.stack(pictures)
    return TrueViews(torch.stack(images), cameras, torch.stack(depths), classes, colors, sharp)

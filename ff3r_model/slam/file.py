"""All submaps in one map file: the active one is the file's map, the rest lies beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from ff3r_model.core.text_space import TextSpace
from ff3r_model.slam.atlas import Atlas
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.submap import Submap
from ff3r_model.voxel_map.file import MapFileError
from ff3r_model.voxel_map.voxel_map import VoxelMap

_foreign_ids = count(-1, -1)
"""Ids for keyframes from files: those of this process count from 0, and engines remember frames by them."""


log = logging.getLogger(__name__)


def save_atlas(atlas: Atlas, path: Path, words: str = "") -> None:
    """Write submaps, what they know of the world, and the archive. Raises MapFileError; then `path` is as it was.

    `words`: fingerprint of what gives the features their meaning.
    """
    submaps = {atlas.active.number: atlas.active} | atlas.others
    references = {str(number): submap.reference.state() for number, submap in submaps.items()}
    header: dict[str, Any] = {"active": atlas.active.number, "others": {}, "references": references}
    header |= {"words": words} if words else {}
    tensors = _under("archive", atlas.archive.tensors())
    tensors |= _under(f"graph{atlas.active.number}", atlas.active.graph.tensors())
    for number, submap in atlas.others.items():
        header["others"][str(number)] = submap.map.header()
        tensors |= _under(f"submap{number}", submap.map.tensors())
        tensors |= _under(f"graph{number}", submap.graph.tensors())
    atlas.active.map.save(path, tensors, {"mapping": header})


def load_atlas(path: Path, config: MappingConfig, space: TextSpace | int, words: str = "") -> Atlas:
    """What `save_atlas` or `VoxelMap.save` wrote. Raises MapFileError for a damaged file, or one of another network.

    A file whose fingerprint is another than `words` is refused; one without any, from before, is taken with a warning.

    Nothing of it is joined to windows to come but through place recognition.
    """
    voxels, tensors, extra = VoxelMap.load_with_extras(path)
    channels = space if isinstance(space, int) else space.channels
    if voxels.channels != channels:
        raise MapFileError(f"{path}: its features have {voxels.channels} channels, not {channels}")
    header = extra.get("mapping", {"active": 0, "others": {}})
    if words:
        _check_words(path, header, words)
    try:
        return _atlas(voxels, tensors, header, config, space)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise MapFileError(f"{path} holds a map that this program cannot go on with: {error}") from error


def _check_words(path: Path, header: Any, words: str) -> None:
    """Refuse a map whose features mean something else to this checkpoint's words."""
    made = header.get("words") if isinstance(header, Mapping) else None
    if made is None:
        log.warning("%s does not tell which checkpoint made it: with another one, queries find nonsense", path)
    elif made != words:
        raise MapFileError(
            f"{path} was made with another checkpoint, whose words these are not: give the weights it was made with"
        )


def _atlas(
    voxels: VoxelMap,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    config: MappingConfig,
    space: TextSpace | int,
) -> Atlas:
    """The parts of a file put together; every KeyError, TypeError, ValueError or RuntimeError is the file's fault."""
    known = None if isinstance(space, int) else space
    active = int(header["active"])
    maps = {
        int(number): VoxelMap.restored(each, _of(f"submap{number}", tensors), known)
        for number, each in header["others"].items()
    }
    atlas = Atlas(config, space, voxels.config)
    submaps = {
        number: atlas.new_submap(each, number, _of(f"graph{number}", tensors))
        for number, each in (maps | {active: voxels}).items()
    }
    for number, submap in submaps.items():
        _restore_reference(submap, header.get("references", {}).get(str(number)))
    nodes = {window: node for submap in submaps.values() for window, node in submap.graph.nodes.items()}
    atlas.archive.restore(_of("archive", tensors), nodes)
    _renumber(atlas, list(submaps.values()))
    atlas.take_over(submaps, active)
    if atlas.others:
        sizes = ", ".join(f"{len(submap.map):,}" for submap in atlas.others.values())
        log.info("the file has %d more submaps, of %s voxels, which lie apart from the map", len(atlas.others), sizes)
    return atlas


def _restore_reference(submap: Submap, state: Mapping[str, Any] | None) -> None:
    """What a submap knows of scale, up and floor; older files do not say, and stay turned as they are."""
    if state is None:
        submap.reference.freeze()
    else:
        submap.reference.restore(state)


def _renumber(atlas: Atlas, submaps: Sequence[Submap]) -> None:
    """Give keyframes ids that no other frame of this process has."""
    ids = {key for submap in submaps for key in submap.map.keyframes.ids} | set(atlas.archive.frames)
    new_of_old = {key: next(_foreign_ids) for key in sorted(ids)}
    for submap in submaps:
        submap.map.keyframes.renumber(new_of_old)
    atlas.archive.renumber(new_of_old)


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def _of(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    head = f"{name}."
    return {key.removeprefix(head): tensor for key, tensor in tensors.items() if key.startswith(head)}

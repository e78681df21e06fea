"""All submaps in one map file: the active one is the file's map, the rest lies beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ff3r_model.core.checked import MALFORMED, record
from ff3r_model.core.text_space import TextSpace
from ff3r_model.slam.atlas import Atlas
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.contents import AtlasRecord, CameraRecord, ReferenceRecord, check_archive, check_graph
from ff3r_model.slam.submap import Submap
from ff3r_model.voxel_map.file import MapFileError
from ff3r_model.voxel_map.voxel_map import VoxelMap

_foreign_ids = count(-1, -1)
"""Ids for keyframes from files: those of this process count from 0, and engines remember frames by them."""


log = logging.getLogger(__name__)


def save_atlas(atlas: Atlas, path: Path, words: str = "", camera: CameraRecord | None = None) -> None:
    """Write submaps, what they know of the world, and the archive. Raises MapFileError; then `path` is as it was.

    `words`: fingerprint of what gives the features their meaning. `camera`: what the run believes of its camera.
    """
    submaps = {atlas.active.number: atlas.active} | atlas.others
    references = {str(number): submap.reference.state() for number, submap in submaps.items()}
    header: dict[str, Any] = {"active": atlas.active.number, "others": {}, "references": references}
    header |= {"words": words} if words else {}
    header |= {"camera": asdict(camera)} if camera else {}
    tensors = _under("archive", atlas.archive.tensors())
    tensors |= _under(f"graph{atlas.active.number}", atlas.active.graph.tensors())
    for number, submap in atlas.others.items():
        header["others"][str(number)] = submap.map.header()
        tensors |= _under(f"submap{number}", submap.map.tensors())
        tensors |= _under(f"graph{number}", submap.graph.tensors())
    atlas.active.map.save(path, tensors, {"mapping": header})


def load_atlas(
    path: Path, config: MappingConfig, space: TextSpace | int, words: str = ""
) -> tuple[Atlas, CameraRecord | None]:
    """What `save_atlas` or `VoxelMap.save` wrote. Raises MapFileError for a damaged file, or one of another network.

    A file whose fingerprint is another than `words` is refused; one without any, from before, is taken with a warning.

    Nothing of it is joined to windows to come but through place recognition.
    """
    voxels, tensors, extra = VoxelMap.load_with_extras(path)
    channels = space if isinstance(space, int) else space.channels
    if voxels.channels != channels:
        raise MapFileError(f"{path}: its features have {voxels.channels} channels, not {channels}")
    try:
        header = record(AtlasRecord, extra.get("mapping", {}), "its record.mapping")
        if words:
            _check_words(path, header.words, words)
            if header.words == words and not _same_decoder(voxels.space, space):
                raise ValueError("its decoder is another than its fingerprint says")
        return _atlas(voxels, tensors, header, config, space), header.camera
    except MALFORMED as error:
        raise MapFileError(f"{path} holds a map that this program cannot go on with: {error}") from error


def _check_words(path: Path, made: str | None, words: str) -> None:
    """Refuse a map whose features mean something else to this checkpoint's words."""
    if made is None:
        log.warning("%s does not tell which checkpoint made it: with another one, queries find nonsense", path)
    elif made != words:
        raise MapFileError(
            f"{path} was made with another checkpoint, whose words these are not: give the weights it was made with"
        )


def _same_decoder(one: TextSpace | None, other: TextSpace | int) -> bool:
    """Whether two text spaces are the same, as far as they are known."""
    if one is None or isinstance(other, int):
        return True
    return torch.equal(one.decoder.cpu(), other.decoder.cpu())


def _atlas(
    voxels: VoxelMap,
    tensors: Mapping[str, Tensor],
    header: AtlasRecord,
    config: MappingConfig,
    space: TextSpace | int,
) -> Atlas:
    """The parts of a file put together; every error is the file's fault."""
    known = None if isinstance(space, int) else space
    parts = _parts(tensors)
    # Voxels: of one kind in all submaps.
    maps = {
        int(number): VoxelMap.restored(each, parts.get(f"submap{int(number)}", {}), known)
        for number, each in header.others.items()
    }
    for number, each in maps.items():
        if each.kind != voxels.kind:
            raise ValueError(f"submap {number} has {each.kind}, and the active one {voxels.kind}")
    # Their pose graphs and references.
    atlas = Atlas(config, space, replace(voxels.config, initial_rows=config.map.initial_rows))
    submaps = {}
    for number, each in (maps | {header.active: voxels}).items():
        graph = parts.get(f"graph{number}", {})
        check_graph(graph, f"graph{number}.")
        submaps[number] = atlas.new_submap(each, number, graph)
        _restore_reference(submaps[number], header.references.get(str(number)))
    # The archive, which is relative to the graphs' nodes.
    nodes = {window: node for submap in submaps.values() for window, node in submap.graph.nodes.items()}
    if len(nodes) < sum(len(submap.graph) for submap in submaps.values()):
        raise ValueError("a window is in the graphs of two submaps")
    check_archive(parts.get("archive", {}), nodes)
    atlas.archive.restore(parts.get("archive", {}), nodes)
    _renumber(atlas, list(submaps.values()))
    atlas.take_over(submaps, header.active)
    if atlas.others:
        sizes = ", ".join(f"{len(submap.map):,}" for submap in atlas.others.values())
        log.info("the file has %d more submaps, of %s voxels, which lie apart from the map", len(atlas.others), sizes)
    return atlas


def _restore_reference(submap: Submap, state: ReferenceRecord | None) -> None:
    """What a submap knows of scale, up and floor; older files do not say, and stay turned as they are."""
    if state is None:
        submap.reference.freeze()
    else:
        submap.reference.restore(asdict(state))


def _renumber(atlas: Atlas, submaps: Sequence[Submap]) -> None:
    """Give keyframes ids that no other frame of this process has."""
    ids = {key for submap in submaps for key in submap.map.keyframes.ids} | set(atlas.archive.frames)
    new_of_old = {key: next(_foreign_ids) for key in sorted(ids)}
    for submap in submaps:
        submap.map.keyframes.renumber(new_of_old)
    atlas.archive.renumber(new_of_old)


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by what they are of, the first part of their names."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, rest = name.partition(".")
        parts.setdefault(owner, {})[rest] = tensor
    return parts

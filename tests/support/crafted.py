"""Crafted files: damages of map files and checkpoints, and what becomes of those that are read all the same."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Similarity
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.mapper import Mapper
from ff3r_model.synthetic.hall import hall_tour, make_hall
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence, room_sequence
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.file import MapFileError, read_map, write_map
from ff3r_model.voxel_map.queries import QuerySet

CHANNELS = 16
VALUES: dict[str, Any] = {
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "-1": -1,
    "0": 0,
    "1e300": 1e300,
    "2**70": 2**70,
    "text": "x",
    "null": None,
    "list": [1],
    "object": {},
}
"""What fields are set to."""
DAMAGES = (
    "emptied", "a row more", "a row fewer", "no dimension", "a dimension more", "another type", "nan", "inf", "-inf",
    "largest", "smallest", "zeros", "removed",
)  # fmt: skip
Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One file to be made."""

    kind: str
    name: str
    make: Callable[[Path], None]


@cache
def hall() -> Sequence:
    """Frames that the oracle knows."""
    return room_sequence(make_hall(0, 60.0), hall_tour(60.0, 0.5)[:28], width=28)


@cache
def space() -> TextSpace:
    return TextSpace(torch.randn(8, CHANNELS, generator=torch.Generator().manual_seed(0)))


def mapper() -> Mapper:
    """A new one, with the oracle for a network."""
    config = MappingConfig(map=MapConfig(voxel_size=0.2, max_map_bytes=8 * 2**20, initial_rows=64), camera_height=1.2)
    return Mapper(OracleEngine(hall(), OracleNoise.realistic()), space(), config)


@cache
def base_map(folder: Path) -> Path:
    """A map file with everything: two submaps, graphs with edges, an archive, references, a text space."""
    path = folder / "base.map"
    made = mapper()
    windows = list(hall().windows(4, 2))
    for window in windows[:4]:
        assert made.place(replace(window, odom_from_camera=None), made.engine(window)).accepted
    made.save(path, "words")
    made.load(path, "words")
    for window in windows[4:7]:
        assert made.place(window, made.engine(window)).accepted
    made.save(path, "words")
    return path


def use(loaded: Mapper, folder: Path) -> None:
    """Go on with a map that was read: map, move, optimise, publish, ask, save, read again. Raises for any trouble."""
    window = list(hall().windows(4, 2))[8]
    assert loaded.place(window, loaded.engine(window)).accepted
    check_finite(loaded)
    for submap in [loaded._atlas.active, *loaded._atlas.others.values()]:
        found = submap.graph.optimise(submap.map.metric) if len(submap.graph) > 1 else {}
        for motion in (found or {}).values():
            assert motion.rotation.isfinite().all() and motion.translation.isfinite().all()
    loaded._atlas.transform({}, Similarity(1.5, torch.eye(3), torch.tensor([1.0, 0.0, 0.0])))
    check_finite(loaded)
    for frame in loaded._atlas.archive.frames.values():
        assert frame.image.isfinite().all() and frame.map_from_camera.isfinite().all()
    queries = QuerySet(lambda texts: torch.randn(len(texts), 8), space())
    queries.add("chair")
    for match in queries.match(loaded.map):
        assert match.scores.isfinite().all()
    loaded.save(folder / "again.map", "words")
    mapper().load(folder / "again.map", "words")


def check_finite(loaded: Mapper) -> None:
    """Raise AssertionError for what must not be published."""
    for submap in [loaded._atlas.active, *loaded._atlas.others.values()]:
        for name, values in vars(submap.map.gaussians()).items():
            assert values.isfinite().all(), name
        for stamp, pose in submap.map.trajectory():
            assert pose.isfinite().all() and abs(stamp) < 2**31 * 10**9


def rewrite(source: Path, path: Path, change: Callable[[Json, dict[str, Tensor]], None]) -> None:
    """The file again with its record and tensors changed, and right checksums."""
    record, tensors = read_map(source)
    change(record, tensors)
    write_map(path, tensors, {name: value for name, value in record.items() if name not in ("version", "checksum")})


def field_paths(record: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of parsed JSON stands, sections included."""
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from field_paths(value, (*at, key))


def set_field(record: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = copy.deepcopy(value)


def damaged(tensor: Tensor, how: str) -> Tensor:
    """A tensor after one of DAMAGES."""
    tensor = tensor.clone()
    if how == "emptied":
        return tensor[:0]
    if how == "a row more":
        return torch.cat([tensor, tensor[-1:]])
    if how == "a row fewer":
        return tensor[:-1]
    if how == "no dimension":
        return tensor.flatten()[0]
    if how == "a dimension more":
        return tensor[None]
    if how == "another type":
        return tensor.to(torch.int32 if tensor.dtype.is_floating_point else torch.float32)
    if how == "zeros":
        return torch.zeros_like(tensor)
    info = torch.finfo(tensor.dtype) if tensor.dtype.is_floating_point else torch.iinfo(tensor.dtype)
    ends = {"largest": info.max, "smallest": info.min}
    value = ends[how] if how in ends else float(how)
    tensor.view(-1)[tensor.numel() // 2] = value
    return tensor


def field_cases(base: Path) -> Iterator[Case]:
    """Each field of the record set to each value."""
    record, _ = read_map(base)
    for at in field_paths({name: value for name, value in record.items() if name not in ("version", "checksum")}):
        for name, value in VALUES.items():

            def make(path: Path, at: tuple[Any, ...] = at, value: Any = value) -> None:
                rewrite(base, path, lambda record, _: set_field(record, at, value))

            yield Case("record fields", f"{'.'.join(map(str, at))} = {name}", make)


def tensor_cases(base: Path) -> Iterator[Case]:
    """Each tensor damaged in each way."""
    for name, tensor in read_map(base)[1].items():
        for how in DAMAGES:
            if how in ("nan", "inf", "-inf") and not tensor.dtype.is_floating_point:
                continue

            def make(path: Path, name: str = name, how: str = how) -> None:
                def change(_: Json, tensors: dict[str, Tensor]) -> None:
                    if how == "removed":
                        del tensors[name]
                    else:
                        tensors[name] = damaged(tensors[name], how)

                rewrite(base, path, change)

            yield Case("tensors", f"{name} {how}", make)


def byte_cases(base: Path, flips: int, header_flips: int, cuts: int, seed: int = 0) -> Iterator[Case]:
    """One bit flipped anywhere or in the header; the file cut."""
    data, choose = base.read_bytes(), random.Random(seed)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for kind, count, end in (("bit flips", flips, len(data)), ("header bit flips", header_flips, header)):
        for _ in range(count):
            bit = choose.randrange(8 * end)
            yield Case(kind, f"bit {bit}", lambda path, bit=bit: path.write_bytes(flipped(data, bit)))
    for _ in range(cuts):
        size = choose.randrange(len(data))
        yield Case("truncations", f"{size} bytes", lambda path, size=size: path.write_bytes(data[:size]))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def header_cases(key: str) -> Iterator[Case]:
    """Headers that are not what they should be, before some bytes of data; `key`: of the record in the metadata."""
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    deep, digits = "[" * 100_000 + "]" * 100_000, "9" * 6000
    texts = [
        "",
        "{",
        "[]",
        "null",
        "1",
        '"x"',
        deep,
        digits,
        '{"a":' * 50_000,
        "{}",
        "\xff\xfe",
        "NaN",
        '{"\ud83d": 1}',
    ]
    texts += [f'{{"x": {deep}}}', f'{{"x": {digits}}}', f'{{"x": {{"dtype": "F32", "shape": [{digits}]}}}}']
    for record in ("", "[]", "{}", deep, digits, "NaN", '{"version": 2}', '{"version": 99, "checksum": ""}',
                   '{"version": true, "checksum": ""}', '{"version": [], "checksum": 1}',
                   '{"version": 2, "checksum": null}', f'{{"version": 2, "checksum": {deep}}}',
                   f'{{"version": {digits}, "checksum": 1}}', '{"version": 1e999, "checksum": 1}'):  # fmt: skip
        texts.append(json.dumps({"__metadata__": {key: record}, "x": good}))
    for metadata in (1, [], {"a": 1}, {"a": None}, "x", None):
        texts.append(json.dumps({"__metadata__": metadata, "x": good}))
    for change in (
        {"dtype": "F8"}, {"dtype": 1}, {"dtype": None}, {"dtype": []}, {"shape": [3]}, {"shape": [-2]}, {"shape": 2},
        {"shape": [2.0]}, {"shape": [True]}, {"shape": [2**62]}, {"shape": [2**62, 0]}, {"shape": [1] * 100},
        {"shape": None}, {"shape": "x"}, {"data_offsets": [0, 9]}, {"data_offsets": [8, 0]}, {"data_offsets": [4, 12]},
        {"data_offsets": [0]}, {"data_offsets": None}, {"data_offsets": [-8, 0]}, {"data_offsets": [2**63, 2**63 + 8]},
        {"more": 1},
    ):  # fmt: skip
        texts.append(json.dumps({"x": good | change}))
    texts.append(json.dumps({"x": good, "y": good}))
    for index, text in enumerate(texts):
        data = text.encode("utf-8", "surrogatepass")
        head = struct.pack("<Q", len(data)) + data + bytes(8)
        yield Case("crafted headers", f"{index}: {text[:40]}", lambda path, head=head: path.write_bytes(head))
    for length in (0, 1, 2**32, 2**63, 2**64 - 1):
        data = struct.pack("<Q", length) + b"{}"
        yield Case("crafted headers", f"length {length}", lambda path, data=data: path.write_bytes(data))


def size_cases(base: Path) -> Iterator[Case]:
    """Small files that speak of much memory."""

    def rows(rows: int) -> Callable[[Json, dict[str, Tensor]], None]:
        def change(record: Json, _: dict[str, Tensor]) -> None:
            for each in (record, *record["extra"]["mapping"]["others"].values()):
                each["config"] |= {"initial_rows": rows, "max_map_bytes": 2**50}

        return change

    def submaps(count: int) -> Callable[[Json, dict[str, Tensor]], None]:
        def change(record: Json, tensors: dict[str, Tensor]) -> None:
            mapping = record["extra"]["mapping"]
            for number in range(100, 100 + count):
                mapping["others"][str(number)] = {
                    name: record[name] for name in ("config", "channels", "scale", "revision")
                }
                for name in [name for name in tensors if name.startswith(("voxels.", "keyframes."))]:
                    tensors[f"extra.submap{number}.{name}"] = tensors[name][:0].clone()

        return change

    for count in (2**20, 2**24, 2**25, 2**40):
        yield Case("rows to come", str(count), lambda path, count=count: rewrite(base, path, rows(count)))
    for count in (100, 400, 3000):
        yield Case("empty submaps", str(count), lambda path, count=count: rewrite(base, path, submaps(count)))


def map_cases(base: Path) -> list[Case]:
    """All cases of map files."""
    return [
        *byte_cases(base, 200, 400, 50),
        *header_cases("ff3r_map"),
        *field_cases(base),
        *tensor_cases(base),
        *size_cases(base),
    ]


def outcome_of_map(case: Case, folder: Path) -> str:
    """refused, harmless, or what went wrong."""
    path = folder / "case.map"
    case.make(path)
    loaded = mapper()
    before = loaded._atlas
    try:
        loaded.load(path, "words")
    except MapFileError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 2000
        assert loaded._atlas is before, "the old map is gone"
        return "refused"
    except Exception as error:
        return f"wrong error: {type(error).__name__}: {error}"
    try:
        use(loaded, folder)
    except Exception as error:
        return f"trouble: {type(error).__name__}: {error}"
    return "harmless"


def checkpoint_header(path: Path) -> Json:
    """What a checkpoint says of its models."""
    data = path.read_bytes()
    header: Json = json.loads(json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]["ff3r"])
    return header


def with_checkpoint_metadata(path: Path, header: Json) -> None:
    """Let the safetensors file at `path` say this of its models."""
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:end]) | {"__metadata__": {"ff3r": json.dumps(header)}}
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[end:])


def with_checkpoint_header(source: Path, path: Path, header: Json) -> None:
    """The checkpoint again with another header."""
    path.write_bytes(source.read_bytes())
    with_checkpoint_metadata(path, header)


CHECKPOINT_VALUES = VALUES | {"1": 1, "2": 2, "7": 7, "10**6": 10**6, "10**9": 10**9}


def checkpoint_cases(base: Path) -> Iterator[Case]:
    """Each field of a checkpoint's header set to each value."""
    header = checkpoint_header(base)
    for at in field_paths({name: value for name, value in header.items() if name != "card"}):
        for name, value in CHECKPOINT_VALUES.items():

            def make(path: Path, at: tuple[Any, ...] = at, value: Any = value) -> None:
                changed = copy.deepcopy(header)
                set_field(changed, at, value)
                with_checkpoint_header(base, path, changed)

            yield Case("checkpoint fields", f"{'.'.join(map(str, at))} = {name}", make)
    yield Case("checkpoint fields", "long_side = 112000", lambda path: with_checkpoint_header(
        base, path, {**header, "config": header["config"] | {"long_side": 112_000}}))  # fmt: skip


def outcome_of_checkpoint(case: Case, folder: Path) -> str:
    """refused, harmless, or what went wrong."""
    from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint

    path = folder / "case.safetensors"
    case.make(path)
    try:
        loaded = load_checkpoint(path)
    except CheckpointError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 4000
        return "refused"
    except Exception as error:
        return f"wrong error: {type(error).__name__}: {error}"
    try:
        with torch.inference_mode():
            patch = loaded.config.encoder.patch
            output = loaded.network(torch.rand(1, 2, 3, 2 * patch, 2 * patch))
            assert output.depth.isfinite().all() and output.pose_encodings.isfinite().all()
            text = loaded.text_encoder.encode(["a red chair"])
            assert loaded.text_space.similarity(torch.rand(3, loaded.config.feature_channels), text).isfinite().all()
    except Exception as error:
        return f"trouble: {type(error).__name__}: {error}"
    return "harmless"

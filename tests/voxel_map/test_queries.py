"""Queries: exact cosines without decoding, softmax per query, masks, flat grids, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Gaussians
from ff3r_model.gaussians.voxelize import VoxelizedGaussians
from ff3r_model.voxel_map.config import MapConfig, ScaleInfo
from ff3r_model.voxel_map.queries import NO_QUERY, QueryConfig, QueryRejected, QuerySet
from ff3r_model.voxel_map.voxel_map import VoxelMap

WORDS = ("chair", "table", "red chair", "sofa", "object", "stuff")


def embed(texts: list[str]) -> torch.Tensor:
    """A random unit vector per text, always the same one."""
    rows = [torch.randn(24, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
    return torch.nn.functional.normalize(torch.stack(rows), dim=1) if rows else torch.zeros(0, 24)


def space(seed: int = 0, channels: int = 6) -> TextSpace:
    return TextSpace(torch.randn(24, channels, generator=torch.Generator().manual_seed(seed)))


def queries(**settings_: object) -> QuerySet:
    return QuerySet(embed, space(), QueryConfig(**{"negatives": ("object", "stuff"), **settings_}))


def map_of(features: torch.Tensor, cells: torch.Tensor, voxel_size: float = 0.1) -> VoxelMap:
    count = len(features)
    gaussians = Gaussians(
        means=cells * voxel_size,
        scales=torch.full((count, 3), 0.01),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        harmonics=torch.zeros(count, 1, 3),
        opacities=torch.ones(count),
        confidences=torch.zeros(count),
        features=features,
    )
    voxel_map = VoxelMap(
        MapConfig(voxel_size=voxel_size, max_map_bytes=2**22, compact=False), features.shape[1], space()
    )
    voxel_map.integrate(VoxelizedGaussians(gaussians, cells.int(), torch.zeros(count), voxel_size), 0)
    return voxel_map


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 50),
    channels=st.integers(1, 12),
    width=st.integers(1, 30),
    texts=st.integers(1, 5),
    seed=st.integers(0, 1000),
    size=st.floats(1e-3, 1e3),
)
def test_similarity_is_the_cosine_of_decoded_features(
    count: int, channels: int, width: int, texts: int, seed: int, size: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(width, channels, generator=generator)
    features = torch.randn(count, channels, generator=generator) * size
    words = torch.randn(texts, width, generator=generator)
    decoded = features.double() @ decoder.double().T
    lengths = decoded.norm(dim=1)[:, None] * words.double().norm(dim=1)
    expected = decoded @ words.double().T / lengths
    actual = TextSpace(decoder).similarity(features, words)
    # where the decoder nearly annihilates a feature, its direction is lost in float32 whichever way one computes
    visible = decoded.norm(dim=1) > 1e-2 * features.double().norm(dim=1) * torch.linalg.matrix_norm(decoder.double(), 2)
    np.testing.assert_allclose(actual[visible].double(), expected[visible], atol=1e-4)


def test_similarity_of_zero_features_and_of_none() -> None:
    words = embed(["chair"])
    assert torch.equal(space().similarity(torch.zeros(3, 6), words), torch.zeros(3, 1))
    assert space().similarity(torch.zeros(0, 6), words).shape == (0, 1)
    assert space().norms(torch.zeros(0, 6)).shape == (0,)


def test_similarity_spans_chunks() -> None:
    features = torch.randn(70_000, 6)
    whole = space().similarity(features, embed(["chair"]))
    torch.testing.assert_close(whole[-5:], space().similarity(features[-5:], embed(["chair"])))


def test_probability_is_a_softmax_over_a_query_and_the_negatives() -> None:
    asked = queries(temperature=0.1)
    for text in ("chair", "sofa", "object"):
        asked.add(text)
    features = torch.randn(40, 6)
    scores = asked.score(features)
    decoded = torch.nn.functional.normalize(features.double() @ space().decoder.double().T, dim=1)
    for column, (text, rivals) in enumerate(
        [("chair", ["object", "stuff"]), ("sofa", ["object", "stuff"]), ("object", ["stuff"])]
    ):
        cosines = decoded @ embed([text, *rivals]).double().T
        expected = torch.softmax(cosines / 0.1, dim=1)[:, 0]
        np.testing.assert_allclose(scores.probability[:, column], expected, atol=1e-5)
    ids = torch.tensor([query.id for query in asked.active])
    assert torch.equal(scores.best, ids[scores.probability.argmax(dim=1)])
    assert torch.equal(scores.best_score, scores.probability.amax(dim=1))


def test_synonyms_do_not_halve_each_other() -> None:
    features = torch.randn(20, 6)
    alone = queries()
    alone.add("sofa")
    both = queries()
    both.add("sofa")
    both.add("chair")
    torch.testing.assert_close(alone.score(features).probability[:, 0], both.score(features).probability[:, 0])


def test_without_rivals_everything_answers() -> None:
    for negatives in ((), ("chair", "chair")):
        asked = queries(negatives=negatives)
        asked.add("chair")
        assert asked.score(torch.randn(3, 6)).probability.tolist() == [[1.0]] * 3


def test_without_queries_nothing_is_best() -> None:
    scores = queries().score(torch.randn(5, 6))
    assert scores.probability.shape == (5, 0)
    assert scores.best.tolist() == [NO_QUERY] * 5
    assert scores.best_score.tolist() == [0.0] * 5
    assert queries().masks(map_of(torch.randn(5, 6), torch.arange(15).view(5, 3))) == []


def test_same_text_is_the_same_query_and_ids_are_not_used_again() -> None:
    asked = queries()
    first = asked.add("red  chair ")
    assert asked.add("red chair") is first
    assert first.text == "red chair"
    asked.remove(first.id)
    assert asked.add("red chair").id != first.id
    asked.remove(" red chair")
    assert asked.active == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  \t\n ", "empty"),
        ("x" * 10_000, "10000 characters"),
        ("chair\x00", "control"),
        ("chair\x1b[2J", "control"),
        ("chair\ud800", "broken"),
        ("chair \ufffd", "broken"),
    ],
)
def test_refuses_what_is_no_query(text: str, reason: str) -> None:
    asked = queries()
    with pytest.raises(QueryRejected, match=reason) as refusal:
        asked.add(text)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 200
    assert asked.active == ()


def test_a_thousand_queries() -> None:
    asked = queries(max_queries=16)
    refused = 0
    for number in range(1000):
        try:
            asked.add(f"thing {number}")
        except QueryRejected as refusal:
            refused += 1
            assert "16" in str(refusal)
    assert (len(asked.active), refused) == (16, 984)
    assert asked.add("thing 3") in asked.active
    asked.clear()
    assert asked.active == ()


def test_removing_what_is_not_there() -> None:
    with pytest.raises(QueryRejected, match="ghost"):
        queries().remove("ghost")


def test_masks_hold_the_voxels_above_the_threshold() -> None:
    cells = torch.tensor([[0, 0, 0], [5, -3, 2], [-7, 1, 4], [2, 2, 2]])
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    voxel_map = map_of(features, cells)
    voxel_map.scale = ScaleInfo(metric=True, source="test")
    asked = queries(threshold=0.4)
    asked.add("chair")
    asked.add("table")
    masks = asked.masks(voxel_map)
    scores = asked.score(voxel_map.gaussians().features)
    for column, mask in enumerate(masks):
        chosen = scores.probability[:, column] >= 0.4
        assert {tuple(row) for row in mask.indices.tolist()} == {
            tuple(row) for row in voxel_map.cells()[chosen].tolist()
        }
        torch.testing.assert_close(mask.scores, scores.probability[chosen, column])
        assert mask.metric
        assert mask.threshold == 0.4
        # the centre of voxel k, as the mask's own geometry has it, is the map's: k times the voxel size
        centres = mask.origin + (mask.indices + 0.5) * mask.voxel_size
        torch.testing.assert_close(centres, mask.indices.double() * 0.1)


@settings(max_examples=30, deadline=None)
@given(
    threshold=st.sampled_from([0.0, 1e-6, 0.1, 0.5, 0.9, 0.9999999, 1.0]),
    negatives=st.sampled_from([("object", "stuff"), ("object",), (), ("chair", "sofa", "object")]),
    temperature=st.sampled_from([0.01, 0.04, 1.0]),
    seed=st.integers(0, 99),
)
def test_masks_are_what_scoring_every_voxel_gives(
    threshold: float, negatives: tuple[str, ...], temperature: float, seed: int
) -> None:
    """Though not every voxel is scored; zero features, changed maps, other maps and removed queries among them."""
    generator = torch.Generator().manual_seed(seed)
    asked = queries(threshold=threshold, negatives=negatives, temperature=temperature)
    maps = []
    for size in (300, 40):
        features = torch.randn(size, 6, generator=generator)
        features[::9] = 0
        maps.append(map_of(features, torch.arange(3 * size).view(size, 3) - 100))
    for text in ("chair", "table", "object"):
        asked.add(text)
        for voxel_map in (*maps, maps[0]):
            scores = asked.score(voxel_map.features).probability
            for column, mask in enumerate(asked.masks(voxel_map)):
                chosen = scores[:, column] >= threshold
                assert torch.equal(mask.indices, voxel_map.cells()[chosen])
                torch.testing.assert_close(mask.scores, scores[chosen, column], atol=1e-5, rtol=1e-5)
        maps[0].integrate(voxels_of(maps[1]), 1)


def voxels_of(voxel_map: VoxelMap) -> VoxelizedGaussians:
    size = voxel_map.config.voxel_size
    return VoxelizedGaussians(voxel_map.gaussians(), voxel_map.cells(), voxel_map.log_mass.clone(), size)


def test_set_threshold() -> None:
    asked = queries()
    asked.set_threshold(1.0)
    assert asked.config.threshold == 1.0
    with pytest.raises(ValueError, match=r"1\.5"):
        asked.set_threshold(1.5)

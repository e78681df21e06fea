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
from ff3r_model.voxel_map.queries import NO_QUERY, QueryConfig, QueryRejected, QuerySet, best_queries
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


def line_of(count: int) -> torch.Tensor:
    """Distinct cells."""
    return torch.arange(3 * count).view(count, 3) - 100


def brute_scores(asked: QuerySet, features: torch.Tensor) -> np.ndarray:
    """voxels × queries in float64: decode every feature, then a softmax over a query and the negatives."""
    decoder = space().decoder.double().numpy()
    decoded = features.double().numpy() @ decoder.T
    decoded /= np.maximum(np.linalg.norm(decoded, axis=1, keepdims=True), 1e-300)
    columns = []
    for query in asked.active:
        rivals = [text for text in dict.fromkeys(asked.config.negatives) if text != query.text]
        cosines = decoded @ embed([query.text, *rivals]).double().numpy().T
        exponentials = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / asked.temperature)
        columns.append(exponentials[:, 0] / exponentials.sum(axis=1))
    return np.stack(columns, axis=1)


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


def test_scores_are_a_softmax_over_a_query_and_the_negatives() -> None:
    asked = queries(temperature=0.1, threshold=0.0)
    for text in ("chair", "sofa", "object"):
        asked.add(text)
    voxel_map = map_of(torch.randn(40, 6), line_of(40))
    matches = asked.match(voxel_map)
    decoded = torch.nn.functional.normalize(voxel_map.features.double() @ space().decoder.double().T, dim=1)
    for match, (text, rivals) in zip(
        matches, [("chair", ["object", "stuff"]), ("sofa", ["object", "stuff"]), ("object", ["stuff"])], strict=True
    ):
        cosines = decoded @ embed([text, *rivals]).double().T
        expected = torch.softmax(cosines / 0.1, dim=1)[:, 0]
        assert match.query.text == text
        assert torch.equal(match.rows, torch.arange(40)), "with threshold 0 every voxel answers"
        np.testing.assert_allclose(match.scores, expected, atol=1e-5)
    ids, best = best_queries(matches, voxel_map)
    scores = torch.stack([match.scores for match in matches], dim=1)
    active = torch.tensor([query.id for query in asked.active])
    assert torch.equal(ids, active[scores.argmax(dim=1)])
    assert torch.equal(best, scores.amax(dim=1))


def test_synonyms_do_not_halve_each_other() -> None:
    voxel_map = map_of(torch.randn(20, 6), line_of(20))
    alone = queries(threshold=0.0)
    alone.add("sofa")
    both = queries(threshold=0.0)
    both.add("sofa")
    both.add("chair")
    torch.testing.assert_close(alone.match(voxel_map)[0].scores, both.match(voxel_map)[0].scores)


def test_without_rivals_everything_answers() -> None:
    for negatives in ((), ("chair", "chair")):
        asked = queries(negatives=negatives)
        asked.add("chair")
        match = asked.match(map_of(torch.randn(3, 6), line_of(3)))[0]
        assert match.rows.tolist() == [0, 1, 2] and match.scores.tolist() == [1.0] * 3


def test_without_queries_nothing_is_best() -> None:
    voxel_map = map_of(torch.randn(5, 6), line_of(5))
    assert queries().match(voxel_map) == queries().masks(voxel_map) == []
    ids, scores = best_queries([], voxel_map)
    assert ids.tolist() == [NO_QUERY] * 5
    assert scores.tolist() == [0.0] * 5


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
def test_the_best_query_has_exactly_the_masks_scores(threshold: float) -> None:
    """A cloud and the masks of one map say the same: bit by bit, for every voxel, against a loop over all masks."""
    voxel_map = map_of(torch.randn(300, 6, generator=torch.Generator().manual_seed(2)), line_of(300))
    asked = queries(threshold=threshold, temperature=0.2)
    for text in ("chair", "table", "object"):
        asked.add(text)
    matches = asked.match(voxel_map)
    ids, scores = best_queries(matches, voxel_map)
    listed: dict[tuple[int, ...], dict[int, float]] = {}
    for mask in [match.mask(voxel_map) for match in matches]:
        for cell, score in zip(mask.indices.tolist(), mask.scores.tolist(), strict=True):
            listed.setdefault(tuple(cell), {})[mask.query.id] = score
    several = 0
    for cell, query_id, score in zip(voxel_map.cells().tolist(), ids.tolist(), scores.tolist(), strict=True):
        answers = listed.get(tuple(cell), {})
        several += len(answers) > 1
        assert score == max(answers.values(), default=0.0)
        assert query_id == max(answers, key=lambda each: answers[each], default=NO_QUERY)
    assert several or threshold > 0.5
    np.testing.assert_allclose(
        np.where(ids.numpy() == NO_QUERY, 0, brute_scores(asked, voxel_map.features).max(axis=1)), scores, atol=1e-5
    )


def test_of_two_queries_that_fit_alike_the_older_one_is_best() -> None:
    voxel_map = map_of(torch.randn(6, 6), line_of(6))
    asked = QuerySet(lambda texts: torch.ones(len(texts), 24), space(), QueryConfig(negatives=(), threshold=0.5))
    first, _ = asked.add("sofa"), asked.add("couch")
    assert best_queries(asked.match(voxel_map), voxel_map)[0].tolist() == [first.id] * 6


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
    scores = torch.tensor(brute_scores(asked, voxel_map.features))
    for column, mask in enumerate(masks):
        chosen = scores[:, column] >= 0.4
        assert {tuple(row) for row in mask.indices.tolist()} == {
            tuple(row) for row in voxel_map.cells()[chosen].tolist()
        }
        torch.testing.assert_close(mask.scores.double(), scores[chosen, column], atol=1e-5, rtol=1e-5)
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
            scores = brute_scores(asked, voxel_map.features)
            for column, match in enumerate(asked.match(voxel_map)):
                found = np.zeros(len(voxel_map), dtype=bool)
                found[match.rows] = True
                # exactly the voxels that reach the threshold; float32 may misjudge a logit by a thousandth or so
                share = scores[:, column]
                clear = (np.abs(share - threshold) > 2e-7 + 2e-3 * share * (1 - share)) | (threshold == 0)
                assert clear.mean() > 0.5 or threshold > 0.99
                assert (found == (share >= threshold))[clear].all()
                assert (match.rows.diff() > 0).all() and (match.scores >= threshold).all()
                np.testing.assert_allclose(match.scores, share[match.rows], atol=1e-4, rtol=1e-4)
                mask = match.mask(voxel_map)
                assert torch.equal(mask.indices, voxel_map.cells()[found])
                assert torch.equal(mask.scores, match.scores)
        maps[0].integrate(voxels_of(maps[1]), 1)


def voxels_of(voxel_map: VoxelMap) -> VoxelizedGaussians:
    size = voxel_map.config.voxel_size
    return VoxelizedGaussians(voxel_map.gaussians(), voxel_map.cells(), voxel_map.rows.log_mass.clone(), size)


def test_set_threshold() -> None:
    asked = queries()
    asked.set_threshold(1.0)
    assert asked.config.threshold == 1.0
    with pytest.raises(ValueError, match=r"1\.5"):
        asked.set_threshold(1.5)


@pytest.mark.parametrize("spelling", ["Floor", "FLOORS", "the floor", " a floor. "])
def test_a_negative_in_any_spelling_does_not_compete_with_itself(spelling: str) -> None:
    """A phone's keyboard types "Floor", which is the negative "floor" too."""
    features = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    voxel_map = map_of(features, line_of(200))
    found = []
    for text in ("floor", spelling):
        asked = queries(negatives=("floor", "wall"), threshold=0.0)
        assert asked.add(text).text == " ".join(text.split())
        found.append(asked.match(voxel_map)[0])
    assert torch.equal(found[0].rows, found[1].rows) and torch.equal(found[0].scores, found[1].scores)
    alone = queries(negatives=("wall",), threshold=0.0)
    alone.add("floor")
    assert torch.equal(found[1].scores, alone.match(voxel_map)[0].scores)


def test_one_thing_in_two_spellings_is_one_query() -> None:
    asked = queries()
    first = asked.add("Red chairs")
    assert asked.add("the red chair") is first and len(asked.active) == 1
    assert asked.remove("a red chair.") is first


def test_spellings_of_one_query_score_alike_and_the_negative_it_names_does_not_compete() -> None:
    voxel_map = map_of(torch.randn(50, 6, generator=torch.Generator().manual_seed(4)), line_of(50))
    scores = {}
    for text in ("object", "Objects", "THE OBJECT.", "any of the objects"):
        asked = queries(threshold=0.0, negatives=("object", "stuff"))
        asked.add(text)
        scores[text] = asked.match(voxel_map)[0].scores
    assert all(torch.equal(score, scores["object"]) for score in scores.values())
    for text, rivals in (("red object", ("stuff",)), ("lid on the object", ("object", "stuff"))):
        asked, alone = queries(threshold=0.0), queries(threshold=0.0, negatives=rivals)
        asked.add(text), alone.add(text)
        torch.testing.assert_close(asked.match(voxel_map)[0].scores, alone.match(voxel_map)[0].scores)


def test_words_that_mean_nothing_are_said(caplog: pytest.LogCaptureFixture) -> None:
    def unknown(text: str) -> list[str]:
        return [word for word in text.split() if not word.isascii()]

    asked = QuerySet(embed, space(), QueryConfig(), unknown)
    assert "no word of '马桶' is known" in asked.add("马桶").doubt
    assert "'马桶' in 'red 马桶' is not known" in asked.add("red 马桶").doubt
    assert "'not' in 'not a wall' is not understood" in asked.add("not a wall").doubt
    assert [asked.add(text).doubt for text in ("red chair", "without", "no parking sign")] == ["", "", ""]
    assert len(caplog.records) == 3


def test_a_megabyte_of_text_is_refused_by_its_length() -> None:
    with pytest.raises(QueryRejected, match="1000000 characters, at most 256") as refusal:
        queries().add("x" * 10**6)
    assert len(str(refusal.value)) < 200
    with pytest.raises(QueryRejected):
        queries().remove("x" * 10**6)


def test_the_temperature_is_the_text_spaces_unless_the_configuration_has_one() -> None:
    for told, suits, expected in (
        (None, {}, 0.04),
        (None, {"temperature": 0.005}, 0.005),
        (0.2, {"temperature": 0.005}, 0.2),
    ):
        assert QuerySet(embed, space(), QueryConfig(temperature=told), **suits).temperature == expected

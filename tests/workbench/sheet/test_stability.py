"""The stability gap, by hand on curves of straight pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import sheet
from workbench.sheet.stability import gaps, stability_gap, to_json


def test_a_v_that_comes_back():
    # Falls 0.4 over 100 tokens, rises 0.6 over 200: back at 0.9 after 400/3 of them.
    gap = stability_gap([(0, 0.9), (100, 0.5), (300, 1.1)])
    back = 100 + 200 * 0.4 / 0.6
    assert gap.depth == pytest.approx(0.4)
    assert gap.length == pytest.approx(back)
    assert gap.at_least == gap.length
    assert gap.recovered
    assert gap.area == pytest.approx(0.4 * back / 2)  # a triangle
    assert (gap.peak, gap.peak_tokens, gap.last) == (1.1, 300, 1.1)


def test_a_v_that_comes_back_exactly_at_a_probe():
    gap = stability_gap([(0, 1.0), (10, 0.0), (20, 1.0), (30, 1.0)])
    assert (gap.depth, gap.length, gap.recovered, gap.area) == (1.0, 20, True, 10.0)
    assert (gap.peak, gap.peak_tokens) == (1.0, 0)


def test_a_fall_that_never_comes_back_has_a_lower_bound():
    gap = stability_gap([(0, 0.8), (50, 0.8), (100, 0.3), (200, 0.5)])
    assert (gap.length, gap.at_least, gap.recovered) == (None, 150, False)
    assert gap.depth == pytest.approx(0.5)
    assert gap.area == pytest.approx(50 * 0.5 / 2 + 100 * (0.5 + 0.3) / 2)


def test_a_rise_before_the_fall_begins_the_gap_at_the_crossing():
    # Rises to 0.7, falls through 0.5 at 150 tokens down to 0.3 at 200, back at 0.5 at 250.
    gap = stability_gap([(0, 0.5), (100, 0.7), (200, 0.3), (300, 0.7)])
    assert gap.length == pytest.approx(100)
    assert gap.area == pytest.approx(0.2 * 100 / 2)
    assert (gap.peak, gap.peak_tokens) == (0.7, 100)


def test_length_is_of_the_first_gap_and_depth_and_area_are_of_all():
    gap = stability_gap([(0, 0.5), (10, 0.4), (20, 0.5), (30, 0.1), (40, 0.2)])
    assert (gap.length, gap.recovered, gap.last) == (20, True, 0.2)
    assert gap.depth == pytest.approx(0.4)
    assert gap.area == pytest.approx(20 * 0.1 / 2 + 10 * 0.4 / 2 + 10 * (0.4 + 0.3) / 2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_curve_that_never_falls_below_its_start_has_no_gap(scores):
    gap = stability_gap([(10 * i, min(scores) if i == 0 else score) for i, score in enumerate(scores)])
    assert (gap.depth, gap.length, gap.area, gap.recovered) == (0, 0, 0, True)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_the_area_fits_into_depth_times_tokens(scores):
    points = [(10.0 * i, score) for i, score in enumerate(scores)]
    gap = stability_gap(points)
    assert 0 <= gap.area <= gap.depth * points[-1][0] + 1e-9
    assert gap.at_least <= points[-1][0]


def test_curves_without_order_are_refused():
    for points in ([], [(0, 1.0), (0, 0.9)], [(10, 1.0), (0, 0.9)]):
        with pytest.raises(ValueError, match="rising numbers of tokens"):
            stability_gap(points)


def test_every_skill_of_every_trained_variant_has_its_gap(race, race_curves):
    found = gaps(race, race_curves)
    assert [one.metric for one in found] == ["retained.facts.acc"] * 9 + ["new.facts.acc"] * 9
    assert {one.variant for one in found} == {curve.variant for curve in race_curves}
    assert set(to_json(found)["gaps"][0]) == {
        *("variant", "metric", "depth", "length", "at_least", "recovered", "area"),
        *("peak", "peak_tokens", "last"),
    }


def test_perplexities_pretraining_and_late_probes_have_no_gap(example):
    probes = [{"language.base.perplexity": 3.0 - i, "retained.facts.acc": 0.9} for i in range(2)]
    points = [{"step": i, "tokens": 10 * i, "probe": probe} for i, probe in enumerate(probes)]
    found = gaps(example, [sheet.Curve("base", points), sheet.Curve("cpt-full", points)])
    assert [(one.variant, one.metric) for one in found] == [("cpt-full", "retained.facts.acc")]
    assert gaps(example, [sheet.Curve("cpt-full", points[1:])]) == []


def test_seeds_have_depths_and_an_interval_of_their_mean(race):
    def points(lowest: float) -> list[dict[str, object]]:
        scores = (0.9, lowest, 0.8)
        return [{"tokens": i, "probe": {"retained.facts.acc": score}} for i, score in enumerate(scores)]

    curve = sheet.Curve("cpt-full", points(0.5), [points(0.4), points(0.5), points(0.6)])
    (found,) = gaps(race, [curve])
    assert found.depths == pytest.approx([0.5, 0.4, 0.3]) and found.gap.depth == pytest.approx(0.4)
    # Student's t of two degrees of freedom at 97.5 % is 4.303; the standard error is 0.1 / sqrt(3).
    assert found.ci.high - 0.4 == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert found.to_json()["depths_ci"] == [found.ci.low, found.ci.high]

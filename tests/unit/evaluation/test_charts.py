import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.evaluation import charts


def _parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def _bars(svg: str, role: str) -> list[dict[str, float]]:
    rectangles = [item for item in _parse(svg).iter("rect") if role in item.attrib["class"].split()]
    return [
        {key: float(item.attrib[key]) for key in ("x", "y", "width", "height")}
        for item in rectangles
    ]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 10))
def test_ticks_are_round_numbers_within_the_range(low: float, width: float, count: int):
    ticks = charts.nice_ticks(low, low + width, count)
    assert len(ticks) <= count + 1
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0] if len(steps) else 0, rtol=1e-6)
    slack = 1e-6 * (abs(low) + width)
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)


def test_ticks_step_by_one_two_or_five():
    assert charts.nice_ticks(0, 1500, 5) == [0, 500, 1000, 1500]
    assert charts.nice_ticks(0, 0.9, 5) == [0, 0.2, 0.4, 0.6, 0.8]


def test_an_interval_bar_is_as_long_as_its_share():
    rows = [
        charts.Interval(label="before", value=0.25, low=0.1, high=0.4, role="before"),
        charts.Interval(label="after", value=1.0, low=0.9, high=1.0, role="after"),
    ]
    svg = charts.interval_chart(rows)
    (before,), (after,) = _bars(svg, "before"), _bars(svg, "after")
    assert before["width"] == pytest.approx(after["width"] / 4, abs=0.1)
    assert "after: 100.0 %, 95 % interval 90.0 % to 100.0 %" in svg


def test_a_histogram_marks_the_ticks_past_the_limit():
    svg = charts.histogram([0, 5, 10, 15], [100, 0, 2], x_label="ms", y_label="ticks", limit=10)
    assert len(_bars(svg, "after")) == 1
    assert len(_bars(svg, "limit")) == 1


def test_one_tick_among_thousands_is_still_seen():
    svg = charts.histogram([0, 1, 2], [10_000, 1], x_label="ms", y_label="ticks")
    common, rare = _bars(svg, "after")
    assert rare["height"] > 0.05 * common["height"]


def test_bins_of_any_width_get_columns_of_one_width():
    svg = charts.histogram([0, 0.1, 10, 500], [5, 5, 5], x_label="ms", y_label="ticks")
    assert len({column["width"] for column in _bars(svg, "after")}) == 1


def test_a_line_chart_leaves_out_values_that_are_not_finite():
    line = charts.Series(label="loss", x=[0, 1, 2], y=[1.0, math.nan, 2.0], role="train")
    svg = charts.line_chart([line], x_label="step", y_label="loss")
    (drawn,) = _parse(svg).iter("polyline")
    assert len(drawn.attrib["points"].split()) == 2


def test_a_line_chart_of_one_point_and_of_one_value_can_be_drawn():
    for y in ([3.0], [2.0, 2.0], [0.0, 0.0]):
        line = charts.Series(label="loss", x=range(len(y)), y=y, has_points=True)
        svg = charts.line_chart([line], x_label="step", y_label="loss")
        assert "nan" not in svg
        assert len(list(_parse(svg).iter("circle"))) == len(y)


def test_a_chart_of_nothing_says_so():
    empty = charts.Series(label="loss", x=[], y=[])
    for html in (
        charts.line_chart([empty], x_label="step", y_label="loss"),
        charts.histogram([0, 1], [0], x_label="ms", y_label="ticks"),
        charts.bar_chart([]),
        charts.timeline([]),
    ):
        assert html.startswith('<p class="empty">')


def test_bars_are_scaled_within_their_own_row():
    groups = [
        charts.BarGroup(label="dx", values={"before": 8.0, "after": 2.0}, format="{:.1f} mm"),
        charts.BarGroup(label="gripper", values={"before": 0.2, "after": 0.1}),
    ]
    svg = charts.bar_chart(groups)
    wide, also_wide = _bars(svg, "before")
    assert wide["width"] == pytest.approx(also_wide["width"])
    assert _bars(svg, "after")[0]["width"] == pytest.approx(wide["width"] / 4, abs=0.1)
    assert "8.0 mm" in svg


def test_the_bars_of_a_timeline_follow_each_other():
    first, second = _bars(charts.timeline([("collect", 30.0), ("train", 90.0)]), "after")
    assert second["x"] == pytest.approx(first["x"] + first["width"], abs=0.2)
    assert second["width"] == pytest.approx(3 * first["width"], rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.25, "4.2 s"), (42.3, "42 s"), (60, "1 min"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_read_like_speech(seconds: float, text: str):
    assert charts.duration(seconds) == text


def test_labels_from_outside_cannot_break_the_drawing():
    rows = [charts.Interval(label="<b>&", value=0.5, low=0.4, high=0.6)]
    texts = [item.text for item in _parse(charts.interval_chart(rows)).iter("text")]
    assert "<b>&" in texts


def test_a_logarithmic_line_chart_has_a_tick_per_power_of_ten():
    line = charts.Series(label="loss", x=[0, 1, 2], y=[0.02, 2.0, 200.0])
    svg = charts.line_chart([line], x_label="step", y_label="loss", is_log=True)
    assert re.findall(r'text-anchor="end">([\d.]+)<', svg) == ["0.1", "1", "10", "100"]


def test_whiskers_stand_on_their_points_and_count_for_the_axis():
    series = charts.Series(
        label="a", x=[0, 1], y=[50, 60], low=[40, float("nan")], high=[90, float("nan")], shift=3.0
    )
    text = charts.line_chart([series], x_label="x", y_label="y")
    (whisker,) = re.findall(r'stroke-opacity="0.5" d="M([\d.]+) ([\d.]+)V([\d.]+)"', text)
    x, low, high = map(float, whisker)
    assert x == charts.LEFT + 3.0
    assert charts.TOP <= high < low  # the axis reaches to the whisker's end

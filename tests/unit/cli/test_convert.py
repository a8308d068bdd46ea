from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from vla.cli.convert import REQUIRED, default_values, from_plain, to_plain, type_name
from vla.errors import ConfigError


class Colour(Enum):
    RED = "red"
    DEEP_BLUE = 2


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    name: str


@dataclass(kw_only=True)
class Outer:
    inner: Inner = field(default_factory=lambda: Inner(name="x"))
    colour: Colour = Colour.RED
    root: Path = Path("a/b")
    limits: tuple[float, ...] = (0.0, 1.0)
    limit: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    parts: list[Inner] = field(default_factory=list)
    is_on: bool = False

    def __post_init__(self):
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"limit is {self.limit}; expected 0 or more")


def test_a_config_survives_the_way_to_plain_values_and_back():
    config = Outer(
        colour=Colour.DEEP_BLUE, limit=2.0, weights={"a": 1.0}, parts=[Inner(name="p", size=9)]
    )
    plain = to_plain(config)
    assert plain["colour"] == "deep_blue"
    assert plain["root"] == "a/b"
    assert from_plain(Outer, plain) == config


def test_defaults_come_from_the_dataclass_and_nested_fields_without_one_are_required():
    @dataclass(kw_only=True)
    class Needs:
        inner: Inner = field(default_factory=Inner)  # type: ignore[arg-type]
        steps: int

    values = default_values(Needs)
    assert values == {"inner": {"size": 3, "name": REQUIRED}, "steps": REQUIRED}
    with pytest.raises(
        ConfigError, match=r"inner.name must be given; add inner.name=VALUE \(text\)"
    ):
        from_plain(Needs, values)


@pytest.mark.parametrize("text", ["red", "RED", "Red"])
def test_enums_are_read_by_value_or_name_whatever_the_case(text):
    assert from_plain(Outer, {"colour": text}).colour is Colour.RED


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"colour": "rad"},
            "unknown colour 'rad'; choose one of deep_blue, red; did you mean 'red'",
        ),
        ({"inner": {"siez": 1}}, "unknown setting 'inner.siez'; .*did you mean 'inner.size'"),
        ({"inner": {"size": "many", "name": "x"}}, "inner.size = 'many' is not int"),
        ({"inner": {"size": 2.5, "name": "x"}}, "inner.size = 2.5 is not int"),
        ({"is_on": 1}, r"is_on = 1 is not true\|false"),
        ({"limit": "low"}, "limit = 'low' is not float"),
        ({"limit": -1.0}, "limit is -1.0; expected 0 or more"),
        (
            {"parts": [{"name": "a"}, {"size": 1, "name": None}]},
            r"parts\[1\].name = None is not text",
        ),
        ({"weights": {"a": "x"}}, "weights.a = 'x' is not float"),
        ({"limits": 3}, "limits = 3 is not tuple"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(values, message):
    with pytest.raises(ConfigError, match=message):
        from_plain(Outer, values)


def test_whole_numbers_may_be_written_as_floats_and_numbers_as_text():
    read = from_plain(Inner, {"size": 1e6, "name": 12})
    assert read == Inner(size=1_000_000, name="12")


def test_types_are_written_as_a_person_would():
    assert type_name(Colour) == "red|deep_blue"
    assert type_name(float | None) == "float or null"
    assert type_name(list[str]) == "list[text]"
    assert type_name(dict[str, Path]) == "dict[text, path]"

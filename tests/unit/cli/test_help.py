from dataclasses import dataclass, field

from vla.cli.convert import default_values
from vla.cli.evaluate import EvalConfig
from vla.cli.help import field_comments, field_rows


@dataclass(kw_only=True)
class Base:
    """A config."""

    size: int = 1  # how large, with a "#" inside
    # what it is called,
    # on two lines
    name: str = "a#b"
    silent: bool = False


@dataclass(kw_only=True)
class Derived(Base):
    """Another config."""

    inner: Base = field(default_factory=Base)
    values: list[int] = field(
        default_factory=lambda: [1, 2],
    )  # several


def test_a_field_is_explained_by_the_comment_beside_it_or_above_it():
    assert field_comments(Base) == {
        "size": 'how large, with a "#" inside',
        "name": "what it is called, on two lines",
        "silent": "",
    }


def test_inherited_and_nested_fields_are_listed_with_type_and_default():
    rows = field_rows(Derived, default_values(Derived))
    assert ("size", "int", "1", 'how large, with a "#" inside') in rows
    assert ("inner.name", "text", "a#b", "what it is called, on two lines") in rows
    assert ("values", "list[int]", "[1,2]", "several") in rows


def test_every_setting_of_an_evaluation_is_explained():
    rows = field_rows(EvalConfig, default_values(EvalConfig))
    assert [name for name, _, _, comment in rows if not comment] == []

import pytest

from vla import errors


def test_every_error_is_a_child_of_the_one_that_the_command_line_prints():
    children = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(children) > 3
    assert all(issubclass(child, errors.VlaError) for child in children)


def test_an_unknown_name_lists_the_choices_in_order_and_the_nearest_one():
    text = errors.unknown_name("camera", "frnt", ["wrist", "front"])
    assert text == "unknown camera 'frnt'; choose one of front, wrist; did you mean 'front'?"


def test_a_name_like_no_other_gets_no_suggestion():
    assert "did you mean" not in errors.unknown_name("task", "zzzz", ["reach", "push"])


@pytest.mark.parametrize("name", [3, None, 0.5])
def test_a_name_that_is_not_text_is_reported_all_the_same(name: object):
    assert repr(str(name)) in errors.unknown_name("layer", name, range(2))

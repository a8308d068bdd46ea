import pytest

from envs.config import EnvConfig
from vla.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "pick_cub", "unknown task 'pick_cub'.*did you mean 'pick_cube'"),
        ("randomization", "soft", "unknown randomization 'soft'; choose one of hard, none, train"),
        ("instruction_split", "test", "unknown instruction_split 'test'"),
        ("cameras", ["front", "side"], "unknown camera 'side'; choose one of front, wrist"),
        ("image_size", 4, "image_size is 4; expected 16 to 1024"),
        ("max_steps", 0, "max_steps is 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_choices(field, value, message):
    with pytest.raises(ConfigError, match=message):
        EnvConfig(**{field: value})


def test_cameras_given_as_a_tuple_become_a_list():
    assert EnvConfig(cameras=("wrist",)).cameras == ["wrist"]  # pyright: ignore[reportArgumentType]

import pytest

from policies.config import PolicyConfig
from vla.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"execute_steps": -1}, "policy.execute_steps must be 0 .* got -1"),
        ({"temperature": -0.5}, "policy.temperature must be 0 .* got -0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PolicyConfig(**settings)

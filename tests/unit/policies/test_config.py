import pytest

from policies.config import Ensemble, PolicyConfig
from vla.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"execute_steps": -1}, "policy.execute_steps must be 0 .* got -1"),
        ({"temperature": -0.5}, "policy.temperature must be 0 .* got -0.5"),
        ({"ensemble_decay": -1.0}, "policy.ensemble_decay must be 0 or more; got -1.0"),
        ({"ensemble": Ensemble.ACT, "execute_steps": 2}, "must be 0 or 1; got 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PolicyConfig(**settings)

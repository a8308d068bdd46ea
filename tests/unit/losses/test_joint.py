import pytest
import torch

from vla.errors import ConfigError
from vla.losses.joint import joint_loss


def test_terms_are_added_by_weight():
    terms = {"action": torch.tensor(2.0), "pointing": torch.tensor(3.0)}
    assert float(joint_loss(terms, {"action": 1.0, "pointing": 0.5, "offset": 9.0})) == 3.5


def test_a_term_without_a_weight_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match="unknown loss term 'pointing'; choose one of action"):
        joint_loss({"pointing": torch.tensor(1.0)}, {"action": 1.0})

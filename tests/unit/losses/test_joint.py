import pytest
import torch

from vla.errors import ConfigError
from vla.losses.joint import joint_loss, token_terms
from vla.losses.suffix import Mean


def test_terms_are_added_by_weight():
    terms = {"action": torch.tensor(2.0), "pointing": torch.tensor(3.0)}
    assert float(joint_loss(terms, {"action": 1.0, "pointing": 0.5, "offset": 9.0})) == 3.5


def test_a_term_without_a_weight_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match="unknown loss term 'pointing'; choose one of action"):
        joint_loss({"pointing": torch.tensor(1.0)}, {"action": 1.0})


LOGITS, IDS = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
# A row of words, a row of actions, and a row that says a plan and then acts.
IS_TEXT = torch.tensor([[0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0]]).bool()
IS_ACTION = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]).bool()


def naive(mask: torch.Tensor, mean: Mean) -> float:
    log_p = LOGITS.log_softmax(dim=-1)
    rows = [
        [-float(log_p[b, t, IDS[b, t]]) for t in range(5) if mask[b, t]]
        for b in range(3)
        if mask[b].any()
    ]
    if mean is Mean.EXAMPLES:
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    return sum(map(sum, rows)) / sum(map(len, rows))


@pytest.mark.parametrize("mean", Mean)
def test_words_and_actions_are_terms_of_their_own(mean):
    terms = token_terms(LOGITS, IDS, {"text": IS_TEXT, "action": IS_ACTION}, mean=mean)
    assert list(terms) == ["text", "action"]
    assert float(terms["text"]) == pytest.approx(naive(IS_TEXT, mean), abs=1e-6)
    assert float(terms["action"]) == pytest.approx(naive(IS_ACTION, mean), abs=1e-6)


def test_the_joint_loss_weighs_words_against_actions_and_z():
    terms = token_terms(LOGITS, IDS, {"text": IS_TEXT, "action": IS_ACTION}, has_z=True)
    is_label = IS_TEXT | IS_ACTION
    z = sum(float(x.logsumexp(0)) ** 2 for x in LOGITS[is_label]) / int(is_label.sum())
    expected = 0.5 * naive(IS_TEXT, Mean.TOKENS) + 2 * naive(IS_ACTION, Mean.TOKENS) + 1e-2 * z
    loss = joint_loss(terms, {"text": 0.5, "action": 2.0, "z": 1e-2})
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_a_batch_without_words_trains_on_actions_alone():
    logits = LOGITS.clone().requires_grad_()
    nothing = torch.zeros_like(IS_TEXT)
    terms = token_terms(logits, IDS, {"text": nothing, "action": IS_ACTION})
    assert float(terms["text"].detach()) == 0.0
    joint_loss(terms, {"text": 1.0, "action": 1.0}).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=-1) > 0).equal(IS_ACTION)


def test_one_kind_of_label_gives_the_plain_loss_of_all_tokens():
    whole = token_terms(LOGITS, IDS, {"all": IS_TEXT | IS_ACTION})["all"]
    assert float(whole) == pytest.approx(naive(IS_TEXT | IS_ACTION, Mean.TOKENS), abs=1e-6)


@pytest.mark.parametrize("names", [[], ["z"]])
def test_label_masks_need_names_of_their_own(names):
    with pytest.raises(ConfigError, match="name at least one kind of label, and none 'z'"):
        token_terms(LOGITS, IDS, dict.fromkeys(names, IS_TEXT))

"""A model that acts, over each of the four families."""

import dataclasses
import functools

import pytest
import torch
from torch import Tensor

from vla.errors import ConfigError
from vla.losses.grounding import grounding_losses
from vla.losses.joint import joint_loss
from vla.losses.suffix import action_cross_entropy, token_cross_entropy
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.families import Family
from vla.models.backbones.variant import Variant
from vla.models.decoder_config import Head
from vla.nn.masks import PrefixAttention
from vla.tokenizers.action_bins import ActionLayout
from vla.tokenizers.prompt import PromptTemplate
from vla.tokenizers.prompt_action import InstructionPrompts
from vla.training.config import BackboneConfig
from vla.training.shapes import action_config, small_backbone

WORDS = ["pick up the red cube", "push the blue ball to the left"]
KINDS = {
    "prismatic": (Family.PRISMATIC, Variant()),
    "prismatic_causal": (Family.PRISMATIC, Variant(attention=PrefixAttention.CAUSAL)),
    "paligemma": (Family.PALIGEMMA, Variant()),
    "qwen2_vl": (Family.QWEN2_VL, Variant()),
    "gemma4": (Family.GEMMA4, Variant()),
    "gemma4_encoder": (Family.GEMMA4, Variant(encoder=True)),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_decoding = pytest.mark.parametrize(
    "decoding", [ActionDecoding.PARALLEL, ActionDecoding.AUTOREGRESSIVE]
)


@functools.cache
def _made(
    kind: str, decoding: ActionDecoding
) -> tuple[dict[str, Tensor], VisionLanguageAction, Tensor, Tensor]:
    family, variant = KINDS[kind]
    cfg = BackboneConfig(
        family=family, variant=variant, decoding=decoding, image_size=32, width=64, depth=2,
        vision_width=32, vision_depth=1, chunk_length=3,
    )  # fmt: skip
    torch.manual_seed(0)
    backbone, tokenizer = small_backbone(cfg, WORDS, 2)
    model = VisionLanguageAction(backbone, action_config(cfg, tokenizer)).eval()
    prompts = InstructionPrompts(
        tokenizer,
        family,
        PromptTemplate.PLAIN,
        max_text_tokens=24,
        image_tokens=[backbone.num_image_tokens((3, 32, 32))] * 2,
    )
    ids, valid = (torch.from_numpy(array) for array in prompts(WORDS))
    return model.state_dict(), model, ids, valid


def _model(kind: str, decoding: ActionDecoding) -> VisionLanguageAction:
    """A fresh copy: tests train it."""
    weights, model, _, _ = _made(kind, decoding)
    torch.manual_seed(0)
    copy = VisionLanguageAction(type(model.backbone)(model.backbone.config), model.config)  # type: ignore[arg-type]
    copy.load_state_dict(weights)
    return copy.eval()


def _inputs(kind: str, decoding: ActionDecoding) -> dict[str, Tensor]:
    _, _, ids, valid = _made(kind, decoding)
    torch.manual_seed(1)
    return {
        "images": torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8),
        "text_ids": ids,
        "text_valid": valid,
        "state": torch.rand(2, 7),
        "action_bins": torch.randint(0, 256, (2, 3, 7)),
    }


def _loss(model: VisionLanguageAction, inputs: dict[str, Tensor]) -> Tensor:
    output, valid = model(**inputs), torch.ones(2, 3, dtype=torch.bool)
    if output.token_logits is not None:
        ids = torch.nn.functional.pad(output.token_ids, (0, 1), value=2)
        return token_cross_entropy(output.token_logits, ids, torch.ones_like(ids, dtype=torch.bool))
    labels = torch.tensor([[0.1, 0, -0.1, 9, 9, -1, -1], [0, 0.2, 0, 20, 9, 18, 27]])
    terms = {"action": action_cross_entropy(output.action_logits, inputs["action_bins"], valid)}
    terms |= grounding_losses(output.pointing_logits, output.target_from_tool_dm, labels)
    return joint_loss(terms, dict.fromkeys(terms, 1.0))


@each_kind
def test_parallel_decoding_gives_logits_of_a_chunk_and_says_where_the_object_is(kind):
    output = _model(kind, ActionDecoding.PARALLEL)(**_inputs(kind, ActionDecoding.PARALLEL))
    assert output.action_logits.shape == (2, 3, 7, 256)
    assert output.pointing_logits.shape == (2, 2, 4)
    assert output.target_from_tool_dm.shape == (2, 3)
    assert output.token_logits is None


@each_kind
def test_autoregressive_decoding_gives_logits_over_all_tokens_and_over_the_bins(kind):
    decoding = ActionDecoding.AUTOREGRESSIVE
    model = _model(kind, decoding)
    output = model(**_inputs(kind, decoding))
    vocabulary = model.config.text_vocab_size + 7 * 256
    assert output.token_logits.shape == (2, 22, vocabulary)  # the last place is the end token's
    assert output.action_logits.shape == (2, 3, 7, 256)
    assert output.pointing_logits is None


@each_kind
@each_decoding
def test_neither_padding_nor_the_rest_of_the_batch_changes_an_answer(kind, decoding):
    model, inputs = _model(kind, decoding), _inputs(kind, decoding)
    together = model(**inputs).action_logits
    for row in range(2):
        length = int(inputs["text_valid"][row].sum())
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        for name in ("text_ids", "text_valid"):
            alone[name] = alone[name][:, :length]
        torch.testing.assert_close(
            model(**alone).action_logits[0], together[row], atol=2e-5, rtol=1e-4
        )


@each_kind
@each_decoding
@pytest.mark.parametrize("name", ["images", "text", "state"])
def test_every_input_moves_the_actions(kind, decoding, name):
    model, inputs = _model(kind, decoding), _inputs(kind, decoding)
    names = ["text_ids", "text_valid"] if name == "text" else [name]
    other = inputs | {name: inputs[name].flip(0) for name in names}
    before, after = model(**inputs).action_logits, model(**other).action_logits
    assert not torch.allclose(before, after, atol=1e-4)


@each_kind
def test_the_two_views_are_told_apart(kind):
    decoding = ActionDecoding.PARALLEL
    model, inputs = _model(kind, decoding), _inputs(kind, decoding)
    swapped = inputs | {"images": inputs["images"].flip(1)}
    if kind.startswith("prismatic"):  # marks are zero at first
        torch.nn.init.normal_(model.backbone.view_embedding)
    before, after = model(**inputs).action_logits, model(**swapped).action_logits
    assert not torch.allclose(before, after, atol=1e-4)


@each_kind
def test_a_teacher_forced_token_does_not_know_itself_or_what_follows(kind):
    decoding = ActionDecoding.AUTOREGRESSIVE
    model, inputs = _model(kind, decoding), _inputs(kind, decoding)
    changed = inputs["action_bins"].clone()
    changed[:, 1, 3:] = (changed[:, 1, 3:] + 50) % 256
    before = model(**inputs).action_logits.flatten(1, 2)
    after = model(**inputs | {"action_bins": changed}).action_logits.flatten(1, 2)
    torch.testing.assert_close(after[:, :11], before[:, :11])  # step 1, number 3 is token 10
    assert not torch.allclose(after[:, 11:], before[:, 11:])


@each_kind
@each_decoding
def test_a_few_steps_of_descent_learn_from_a_batch_and_reach_every_weight(kind, decoding):
    model, inputs = _model(kind, decoding).train(), _inputs(kind, decoding)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = _loss(model, inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    unread = ("token_embedding", "layer_scalars")
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in without if not name.endswith(unread)] == []


@pytest.mark.parametrize(
    ("kind", "is_seen"), [("prismatic", True), ("paligemma", True), ("prismatic_causal", False)]
)
def test_image_tokens_read_the_instruction_when_the_prefix_attends_to_all_of_itself(kind, is_seen):
    model, inputs = _model(kind, ActionDecoding.PARALLEL), _inputs(kind, ActionDecoding.PARALLEL)
    seen = []
    assert model.grounding_head is not None
    model.grounding_head.key.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    model(**inputs)
    words = {name: inputs[name].flip(0) for name in ("text_ids", "text_valid")}
    model(**inputs | words)
    assert torch.allclose(seen[0], seen[1], atol=1e-6) is not is_seen


@pytest.mark.parametrize("sees_later", [True, False])
def test_slots_see_those_after_them_only_where_the_config_says_so(sees_later):
    model = _model("prismatic", ActionDecoding.PARALLEL)
    model.config = dataclasses.replace(model.config, sees_later_slots=sees_later)
    inputs = _inputs("prismatic", ActionDecoding.PARALLEL)
    before = model(**inputs).action_logits[:, 0]
    torch.nn.init.normal_(model.action_head.slots.data[2])
    after = model(**inputs).action_logits[:, 0]
    assert torch.allclose(before, after, atol=1e-6) is not sees_later


def test_bf16_autocast_stays_close_to_fp32():
    model, inputs = (make("prismatic", ActionDecoding.PARALLEL) for make in (_model, _inputs))
    with torch.autocast("cpu", torch.bfloat16):
        low = model(**inputs).action_logits
    assert low.dtype is torch.bfloat16
    assert (low.float() - model(**inputs).action_logits).abs().mean() < 0.05


def test_a_model_built_without_memory_takes_weights_and_computes_the_same():
    weights, model, _, _ = _made("paligemma", ActionDecoding.PARALLEL)
    inputs = _inputs("paligemma", ActionDecoding.PARALLEL)
    with torch.device("meta"):
        empty = VisionLanguageAction(type(model.backbone)(model.backbone.config), model.config)  # type: ignore[arg-type]
    empty.load_state_dict(weights, assign=True)
    ours = empty.eval()(**inputs).action_logits
    torch.testing.assert_close(ours, model(**inputs).action_logits)


def test_what_a_model_needs_and_is_not_given_is_said():
    inputs = _inputs("prismatic", ActionDecoding.AUTOREGRESSIVE)
    model = _model("prismatic", ActionDecoding.AUTOREGRESSIVE)
    with pytest.raises(ConfigError, match="is fed action_bins; or use ActionEngine"):
        model(**inputs | {"action_bins": None})
    with pytest.raises(ConfigError, match="the model reads 7 state values"):
        model(**inputs | {"state": None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_length": 0}, "chunk_length = 0; it must be at least 1"),
        (
            {"decoding": ActionDecoding.AUTOREGRESSIVE, "layout": ActionLayout.LAST_256},
            "grounding reads",
        ),
    ],
)
def test_choices_that_do_not_fit_each_other_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(ActionConfig(), **change)


def test_a_backbone_that_cannot_write_actions_is_refused():
    backbone = _model("paligemma", ActionDecoding.PARALLEL).backbone
    size = backbone.config.decoder.vocab_size
    one_by_one = ActionConfig(
        text_vocab_size=size, decoding=ActionDecoding.AUTOREGRESSIVE, grounding=False
    )
    with pytest.raises(ConfigError, match=f"with PER_DIMENSION action tokens needs {size + 1792}"):
        VisionLanguageAction(backbone, one_by_one)
    backbone.config.decoder.head = Head.NONE
    last = dataclasses.replace(one_by_one, layout=ActionLayout.LAST_256)
    with pytest.raises(ConfigError, match="build the decoder with head=TIED or head=OWN"):
        VisionLanguageAction(backbone, last)

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from policies.config import PolicyConfig
from policies.vla_policy import VlaPolicy
from vla.checkpoints import native
from vla.checkpoints.contract import Contract
from vla.data.stats import ActionStatistics, StateStatistics
from vla.errors import CheckpointError, ConfigError, PolicyError
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import tiny
from vla.tokenizers.action_bins import ActionBins
from vla.tokenizers.prompt import PromptTemplate
from vla.tokenizers.text import train_text_tokenizer
from vla.types import TABLETOP, Observation, Policy

CHUNK = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Returns a directory with a small untrained policy."""
    return _save(tmp_path_factory.mktemp("policy") / "checkpoint", ActionDecoding.PARALLEL)


@pytest.fixture(scope="module")
def token_policy(tmp_path_factory):
    """Returns a small untrained policy that decodes token by token."""
    directory = tmp_path_factory.mktemp("policy") / "one_by_one"
    return VlaPolicy.from_checkpoint(_save(directory, ActionDecoding.AUTOREGRESSIVE))


def _save(directory, decoding):
    tokenizer = train_text_tokenizer(["pick up the red cube", "push the blue ball"])
    torch.manual_seed(0)
    actions = ActionConfig(
        text_vocab_size=tokenizer.get_vocab_size(),
        decoding=decoding,
        chunk_length=CHUNK,
        grounding=decoding is ActionDecoding.PARALLEL,
    )
    config = tiny(actions.num_token_rows, width=32, depth=1, vision_width=32, vision_depth=1)
    spec = TABLETOP.action_spec
    rng = np.random.default_rng(0)
    moves = rng.uniform(spec.low, spec.high, (500, 7)).astype(np.float32)
    states = rng.normal(size=(500, 7)).astype(np.float32)
    contract = Contract(
        embodiment=TABLETOP,
        image_size=64,
        action_statistics=ActionStatistics.from_array(moves, spec),
        state_statistics=StateStatistics.from_array(states, TABLETOP.state_spec),
        prompt=PromptTemplate.PLAIN,
        max_text_tokens=24,
    )
    native.save(directory, VisionLanguageAction(Prismatic(config), actions), contract, tokenizer)
    return directory


@pytest.fixture
def policy(checkpoint):
    return VlaPolicy.from_checkpoint(checkpoint)


def _observation(seed=0, instruction="pick up the red cube", size=64):
    rng = np.random.default_rng(seed)
    images = {
        name: rng.integers(0, 256, (size, size, 3), np.uint8) for name in ("wrist", "front", "side")
    }
    state = rng.normal(size=7).astype(np.float32)
    return Observation(images=images, state=state, instruction=instruction, captured_at_s=0.7)


def test_a_checkpoint_acts_with_whole_chunks_within_the_limits_and_says_how_sure_it_is(policy):
    assert isinstance(policy, Policy)
    chunk = policy.act(_observation())
    assert chunk.actions.shape == (CHUNK, 7)
    policy.action_spec.check(chunk.actions)
    assert chunk.captured_at_s == 0.7
    assert chunk.probabilities is not None
    assert chunk.probabilities.shape == (CHUNK, 7)
    assert ((chunk.probabilities > 0) & (chunk.probabilities <= 1)).all()


def test_actions_are_the_centres_of_bins_in_physical_units(checkpoint, policy):
    statistics = native.load(checkpoint).contract.action_statistics
    actions = policy.act(_observation()).actions
    normalized = statistics.normalize(actions)
    distance = np.abs(normalized[..., None] - ActionBins.centers).min(axis=-1)
    assert distance.max() < 1e-4


def test_a_batch_equals_its_observations_one_by_one(policy):
    observations = [_observation(0), _observation(1, "push the blue ball"), _observation(2)]
    together = policy.act_batch(observations)
    for observation, chunk in zip(observations, together, strict=True):
        np.testing.assert_array_equal(policy.act(observation).actions, chunk.actions)


def test_cameras_are_taken_by_name_and_not_by_order(policy):
    observation = _observation()
    reordered = dict(sorted(observation.images.items()))
    again = policy.act(dataclasses.replace(observation, images=reordered))
    np.testing.assert_array_equal(again.actions, policy.act(observation).actions)


def test_larger_pictures_are_brought_to_the_size_of_training_with_antialiasing(policy):
    large = _observation(size=200)
    small = {
        name: np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC))
        for name, image in large.images.items()
    }
    expected = policy.act(dataclasses.replace(large, images=small)).actions
    np.testing.assert_array_equal(policy.act(large).actions, expected)


def test_pictures_are_resized_as_datasets_are(policy):
    from vla.data import frames_cache

    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    resized = frames_cache.resized(Image.fromarray(image), (64, 64))
    np.testing.assert_array_equal(policy._picture("front", image), resized)


def test_sampling_belongs_to_the_seed_of_the_episode(checkpoint):
    policy = VlaPolicy.from_checkpoint(checkpoint, PolicyConfig(temperature=1.0))
    draws = []
    for seed in (1, 1, 2):
        policy.reset(seed)
        draws.append(policy.act(_observation()).actions)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_a_policy_of_tokens_continues_from_the_committed_actions(token_policy):
    observation = _observation()
    free = token_policy.act(observation).actions
    other = token_policy.act(_observation(3)).actions[
        :2
    ]  # what another chunk of the same policy holds
    told = token_policy.act(dataclasses.replace(observation, committed=other)).actions
    np.testing.assert_allclose(told[:2], other, atol=1e-6)
    same = token_policy.act(dataclasses.replace(observation, committed=free[:2])).actions
    np.testing.assert_allclose(same, free, atol=1e-6)


def test_committed_actions_between_two_bins_come_back_as_the_nearer(token_policy):
    wanted = np.full((1, 7), 0.0123, np.float32)
    told = token_policy.act(dataclasses.replace(_observation(), committed=wanted)).actions
    spec = token_policy.action_spec
    half_bins = np.subtract(spec.high, spec.low) / 255
    assert (np.abs(told[0] - wanted[0])[:6] <= half_bins[:6]).all()


def test_observations_with_and_without_commitments_are_answered_together(token_policy):
    told = dataclasses.replace(_observation(1), committed=np.zeros((1, 7), np.float32))
    everything = dataclasses.replace(_observation(2), committed=np.zeros((9, 7), np.float32))
    observations = [_observation(0), told, everything, dataclasses.replace(told)]
    together = token_policy.act_batch(observations)
    for observation, chunk in zip(observations, together, strict=True):
        np.testing.assert_allclose(token_policy.act(observation).actions, chunk.actions, atol=1e-6)
    assert together[2].actions.shape == (CHUNK, 7)  # at least the last action is the policy's own


def test_a_policy_that_decodes_in_parallel_ignores_what_is_committed(policy):
    observation = _observation()
    told = dataclasses.replace(observation, committed=np.zeros((2, 7), np.float32))
    np.testing.assert_array_equal(policy.act(told).actions, policy.act(observation).actions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": {"side": np.zeros((64, 64, 3), np.uint8)}},
            "no camera 'front', 'wrist'; it has side",
        ),
        (
            {"state": np.zeros(3, np.float32)},
            r"shape \(3,\); the policy was trained with 7 numbers: x, y",
        ),
        (
            {"images": {name: np.zeros((64, 64, 4), np.uint8) for name in ("front", "wrist")}},
            r"camera 'front' gave uint8 of shape \(64, 64, 4\)",
        ),
        (
            {"images": {name: np.zeros((64, 64, 3)) for name in ("front", "wrist")}},
            "camera 'front' gave float64",
        ),
    ],
)
def test_an_observation_that_does_not_fit_is_named(policy, change, message):
    with pytest.raises(PolicyError, match=message):
        policy.act(dataclasses.replace(_observation(), **change))


def test_an_instruction_that_is_too_long_is_refused(policy):
    with pytest.raises(ConfigError, match="shorten it"):
        policy.act(_observation(instruction="pick up the red cube " * 20))


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        VlaPolicy.from_checkpoint(tmp_path)

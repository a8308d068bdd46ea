import numpy as np
import pytest

from vla.control.board import Word
from vla.control.clock import SimulatedClock
from vla.control.messages import Links
from vla.control.policy_side import FaultConfig, Lockstep, PolicySide
from vla.errors import ConfigError, PolicyError
from vla.types import END_EFFECTOR_DELTA_7D, ActionChunk, Observation


class Player:
    """Gives chunks of two actions; the episode ends with the `last`-th observation."""

    def __init__(self, last: int = 10**9, steps: int = 2) -> None:
        self.last, self.steps = last, steps
        self.num_episodes = self.num_observations = 0
        self.asked: list[Observation] = []

    def begin_episode(self):
        self.num_episodes += 1
        self.num_observations = 0
        return {}

    def observe(self, snapshot) -> Observation:
        self.num_observations += 1
        return Observation(images={}, state=np.zeros(7, np.float32), instruction="")

    def outcome(self) -> str:
        return "success" if self.num_observations >= self.last else ""

    def act(self, observation) -> ActionChunk:
        self.asked.append(observation)
        return ActionChunk(actions=np.full((self.steps, 7), 0.01, dtype=np.float32))


class Setting:
    """A policy's side on a simulated clock, with the control loop's end of the links."""

    def __init__(self, player: Player | None = None, **faults: float) -> None:
        self.links = Links.in_process({}, {}, END_EFFECTOR_DELTA_7D)
        self.clock = SimulatedClock()
        self.player = player or Player()
        self.side = PolicySide(self.player, self.links, FaultConfig(**faults), self.clock)
        self.side.start()
        self.stalls: list[float] = []
        self.wants_chunk = True
        self.committed = np.zeros((0, 7), np.float32)

    def show(self, episode: int = 0, is_waiting: bool = True) -> None:
        self.links.snapshots.publish(
            episode=episode,
            captured_at_s=self.clock.now(),
            is_waiting=is_waiting,
            wants_chunk=self.wants_chunk,
            num_committed=len(self.committed),
            committed=np.pad(self.committed, ((0, 64 - len(self.committed)), (0, 0))),
        )

    def ask(self, episode: int = 0, is_waiting: bool = True):
        self.show(episode, is_waiting)
        return self.side.answer(self.links.snapshots.read_new(), self.stalls.append)


def test_starting_publishes_the_first_scene():
    assert Setting().links.scenes.read_new().integer("episode") == 0


def test_an_answer_names_the_snapshot_it_belongs_to():
    setting = Setting()
    setting.ask()
    answer = setting.ask()
    assert (answer["snapshot"], answer["episode"], answer["steps"]) == (2, 0, 2)
    np.testing.assert_allclose(answer["actions"][:2], 0.01)


def test_a_stale_snapshot_and_one_of_an_earlier_episode_are_not_answered():
    setting = Setting()
    assert setting.ask(episode=-1) is None
    setting.show()
    setting.clock.advance(0.05)
    assert setting.side.answer(setting.links.snapshots.read_new(), setting.stalls.append) is None
    assert setting.player.num_observations == 0


def test_a_policy_of_single_actions_is_asked_only_when_the_arm_waits_for_it():
    setting = Setting(Player(steps=1))
    setting.side.send(setting.ask())
    assert setting.ask() is None  # captured before the arm can have got the answer
    setting.clock.advance(0.01)
    assert setting.ask(is_waiting=False) is None
    assert setting.ask(is_waiting=True) is not None


def test_a_policy_of_chunks_is_asked_while_an_action_is_carried_out():
    setting = Setting(Player(steps=2))
    setting.side.send(setting.ask())
    assert setting.ask(is_waiting=False) is not None


def test_a_snapshot_that_wants_no_chunk_is_looked_at_but_not_answered():
    setting = Setting()
    setting.wants_chunk = False
    assert setting.ask() is None
    assert (setting.player.num_observations, len(setting.player.asked)) == (1, 0)


def test_the_policy_is_told_what_is_committed():
    setting = Setting()
    setting.committed = np.full((2, 7), 0.03, np.float32)
    setting.ask()
    np.testing.assert_array_equal(setting.player.asked[0].committed, setting.committed)


def test_the_end_of_an_episode_lets_the_arm_rest_and_publishes_the_next_scene():
    setting = Setting(Player(last=2))
    setting.links.scenes.read_new()
    assert setting.ask() is not None
    assert setting.ask() is None
    assert setting.links.chunks.read_new().integer("steps") == 0
    assert setting.links.scenes.read_new().integer("episode") == 1
    assert setting.ask(episode=1) is not None


def test_an_injected_stall_happens_once_and_is_noted():
    setting = Setting(stall_policy_at_s=1.0, stall_policy_for_s=2.0)
    setting.ask()
    setting.clock.advance(0.9)
    setting.ask()
    assert setting.stalls == []
    setting.clock.advance(0.2)
    setting.ask()
    setting.ask()
    assert setting.stalls == [2.0]
    assert setting.links.board[Word.STALL_BEGAN] == pytest.approx(1.1)


def test_injected_faults_lose_or_spoil_every_nth_chunk():
    setting = Setting(nan_every=2, drop_every=3)
    answers = [setting.ask() for _ in range(6)]
    assert [answer is None for answer in answers] == [False, False, True, False, False, True]
    assert [bool(np.isnan(answer["actions"]).any()) for answer in answers if answer] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("steps", [0, 65])
def test_a_chunk_of_impossible_length_is_an_error_of_the_policy(steps):
    with pytest.raises(PolicyError, match=f"gave {steps} actions in a chunk; expected 1 to 64"):
        Setting(Player(steps=steps)).ask()


def test_faults_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="must be 0"):
        FaultConfig(nan_every=-1)
    with pytest.raises(ConfigError, match=r"needs faults\.stall_policy_at_s"):
        FaultConfig(stall_policy_for_s=2.0)


def test_in_lockstep_an_answer_arrives_after_its_latency_and_none_is_begun_before():
    setting = Setting()
    lockstep = Lockstep(setting.side, setting.links, setting.clock, latency_s=0.04)
    arrived = []
    for _ in range(10):
        setting.show()
        lockstep.after_tick()
        chunk = setting.links.chunks.read_new()
        arrived.append(chunk.integer("snapshot") if chunk else 0)
        setting.clock.advance(0.01)
    assert arrived == [0, 0, 0, 0, 1, 0, 0, 0, 5, 0]


def _arrivals(latency_s, max_in_flight: int = 1, num_ticks: int = 12) -> list[int]:
    """The snapshot that the chunk arriving in each tick of 10 ms answers, 0 where none arrives."""
    setting = Setting()
    lockstep = Lockstep(setting.side, setting.links, setting.clock, latency_s, max_in_flight)
    arrived = []
    for _ in range(num_ticks):
        setting.show()
        lockstep.after_tick()
        chunk = setting.links.chunks.read_new()
        arrived.append(chunk.integer("snapshot") if chunk else 0)
        setting.clock.advance(0.01)
    return arrived


def test_latencies_can_be_scripted_by_the_number_of_the_question_and_answers_be_lost():
    script = [0.02, None, 0.05, 0.02, 0.1]
    # 1 is answered in two ticks, 3 is lost, 4 takes five ticks, 9 two.
    assert _arrivals(lambda asked: script[asked]) == [0, 0, 1, 0, 0, 0, 0, 0, 4, 0, 9, 0]


def test_with_two_under_way_an_answer_can_overtake_an_older_one():
    script = [0.05, 0.02, 0.1, 0.1]
    arrived = [snapshot for snapshot in _arrivals(lambda asked: script[asked], 2) if snapshot]
    assert arrived[:2] == [2, 1]

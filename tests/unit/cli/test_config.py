import pytest

from policies.config import PolicyConfig, PolicyKind
from vla.cli import config
from vla.cli.evaluate import EvalConfig
from vla.control.schedule import Schedule
from vla.errors import ConfigError
from vla.inference.readout import Readout


def compose(*overrides: str) -> EvalConfig:
    return config.compose("eval", EvalConfig, overrides)


def test_yaml_choices_and_overrides_become_one_dataclass():
    cfg = compose("env=stack", "policy=random", "episodes=7", "env.image_size=96", "latency_ms=50")
    assert (cfg.env.task, cfg.env.image_size) == ("stack", 96)
    assert cfg.policy.kind is PolicyKind.RANDOM
    assert (cfg.episodes, cfg.latency_ms) == (7, [50.0])


@pytest.mark.parametrize("group", ["env", "policy"])
def test_every_choice_of_a_group_composes(group):
    for choice in config.group_choices(group):
        assert isinstance(compose(f"{group}={choice}"), EvalConfig)


def test_env_choices_are_the_tasks():
    from envs.tasks import TASKS

    assert set(config.group_choices("env")) == set(TASKS)


def test_policy_may_be_the_path_of_a_checkpoint(tmp_path):
    directory = tmp_path / "it's a run, with = and spaces"
    directory.mkdir()
    cfg = compose(f"policy={directory}", "policy.readout=cautious")
    assert cfg.policy == PolicyConfig(path=str(directory), readout=Readout.CAUTIOUS)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("episods=3", "unknown setting 'episods'; choose one of .*did you mean 'episodes'"),
        ("env.tusk=reach", "unknown setting 'env.tusk'; .*did you mean 'env.task'"),
        ("+new=3", "unknown setting 'new'"),
        ("env=pick_cub", "unknown env 'pick_cub'; .*did you mean 'pick_cube'"),
        ("env.task=pick_cub", "unknown task 'pick_cub'; .*did you mean 'pick_cube'"),
        ("env.cameras=[front,side]", "unknown camera 'side'; choose one of front, wrist"),
        ("policy=expart", "unknown policy 'expart'; .*or give the path of a checkpoint"),
        ("policy=", "unknown policy ''; choose one of"),
        (
            "policy=runs/nowhere",
            "no checkpoint at runs/nowhere; give an existing directory, or one of",
        ),
        ("episodes=many", "episodes = 'many' is not int"),
        ("episodes=1,2", "'episodes=1,2' gives several values; write a list as"),
        ("episodes=[1", r"cannot read 'episodes=\[1'"),
        ("episodes", "unknown argument 'episodes'; .*settings are written key=value"),
        (
            "policy.readout=most",
            "unknown policy.readout 'most'; choose one of cautious, median, mode",
        ),
        ("policy.temperature=-1", "policy.temperature must be 0"),
        ("video_episodes=0", "video_episodes must be at least 1; got 0"),
    ],
)
def test_bad_input_is_one_line_that_names_the_choices(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose(override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("written", ["0,50,200", "[0,50,200]"])
def test_a_list_may_be_written_without_brackets(written):
    cfg = compose(f"latency_ms={written}", "scheduler=synchronous,real_time_chunking")
    assert cfg.latency_ms == [0.0, 50.0, 200.0]
    assert cfg.scheduler == [Schedule.SYNCHRONOUS, Schedule.REAL_TIME_CHUNKING]


def test_one_value_is_a_list_of_one():
    assert compose("latency_ms=200").latency_ms == [200.0]
    with pytest.raises(ConfigError, match="unknown scheduler 'fast'; choose one of asynchronous"):
        compose("scheduler=fast")

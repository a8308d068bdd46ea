import pytest

import vla
from policies.config import PolicyConfig, PolicyKind
from vla.cli import build
from vla.errors import CheckpointError, ConfigError
from vla.types import Policy


@pytest.mark.parametrize("kind", [PolicyKind.HOLD, PolicyKind.RANDOM])
def test_a_policy_without_weights_is_built_from_its_kind_alone(kind):
    assert isinstance(build.build_policy(PolicyConfig(kind=kind)), Policy)


def test_the_expert_needs_the_simulator_it_reads():
    with pytest.raises(ConfigError, match="reads the simulator's state"):
        build.build_policy(PolicyConfig(kind=PolicyKind.EXPERT))


def test_a_checkpoint_is_found_by_path(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert build.find_checkpoint(str(tmp_path)) == tmp_path


def test_the_path_of_a_training_run_stands_for_its_newest_checkpoint(tmp_path):
    newest = tmp_path / "checkpoints" / "step-20"
    newest.mkdir(parents=True)
    (newest / "config.json").write_text("{}")
    (tmp_path / "checkpoints" / "latest").symlink_to("step-20")
    assert build.find_checkpoint(str(tmp_path)) == newest


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        build.find_checkpoint(str(tmp_path))


def test_a_shipped_checkpoint_is_found_by_name_inside_the_package(tmp_path, monkeypatch):
    shipped = tmp_path / "vla" / "pretrained" / "tiny"
    shipped.mkdir(parents=True)
    (shipped / "config.json").write_text("{}")
    monkeypatch.setattr(vla, "__file__", str(tmp_path / "vla" / "__init__.py"))
    assert build.find_checkpoint("tiny") == shipped
    with pytest.raises(CheckpointError, match=r"unknown checkpoint 'tinny'; .*did you mean 'tiny'"):
        build.find_checkpoint("tinny")


def test_a_file_is_no_checkpoint(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(CheckpointError, match="is a file; a checkpoint is a directory"):
        build.find_checkpoint(str(tmp_path / "model.safetensors"))


def test_no_checkpoint_at_all_is_said_so():
    with pytest.raises(ConfigError, match="no checkpoint given"):
        build.find_checkpoint("")

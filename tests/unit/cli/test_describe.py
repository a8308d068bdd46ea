import pytest

from vla.cli import describe
from vla.cli.describe import DescribeConfig
from vla.errors import ConfigError


def test_the_parts_of_openvla_add_up_to_its_seven_and_a_half_billion(tmp_path, capsys):
    summary = describe.run(DescribeConfig(backbone="openvla_7b"), tmp_path)
    assert sum(summary["parts"].values()) == summary["parameters"]
    assert 7.4e9 < summary["parameters"] < 7.6e9
    assert summary["tokens"]["image_tokens_per_view"] == 256
    assert summary["shapes"]["image"] == [1, 3, 224, 224]
    assert f"{summary['parameters']:,}" in capsys.readouterr().out


def test_an_unknown_backbone_is_named_with_the_choices(tmp_path):
    with pytest.raises(
        ConfigError, match="unknown backbone 'openvla'; choose one of openvla_7b, tiny"
    ):
        describe.run(DescribeConfig(backbone="openvla"), tmp_path)

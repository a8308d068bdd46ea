import importlib.util

import pytest

from policies.config import PolicyConfig
from vla.cli import build
from vla.cli.config import compose
from vla.cli.serve import ServeConfig, start_text
from vla.errors import ConfigError
from vla.serving.card import PolicyCard
from vla.serving.server import Listening
from vla.types import END_EFFECTOR_DELTA_7D, TOOL_POSE_7D

CARD = PolicyCard(
    name="tiny",
    action_spec=END_EFFECTOR_DELTA_7D,
    camera_names=("front", "wrist"),
    state_spec=TOOL_POSE_7D,
    image_size=64,
)


def listening(has_tls: bool = False, needs_token: bool = True) -> Listening:
    return Listening(
        websocket="ws://0.0.0.0:8000",
        rest=None,
        needs_token=needs_token,
        has_tls=has_tls,
        layouts={"vla": []},
    )


def test_the_start_text_says_where_who_may_what_is_spoken_and_how_much():
    text = start_text(ServeConfig(), CARD, listening(needs_token=False))
    assert "7 numbers per action at 10 Hz, cameras front, wrist (64 x 64 px)" in text
    assert "openpi websocket  ws://0.0.0.0:8000" in text
    assert "OpenVLA REST      off" in text
    assert "this machine only; no token; no TLS" in text
    assert "8 MB a message, 16 clients, 100 messages a second each, answer within 10 s" in text
    assert "1 open, 0 closed" in text
    assert "unencrypted" not in text


def test_other_machines_and_no_tls_come_with_advice_how_to_have_it():
    text = start_text(ServeConfig(host="0.0.0.0"), CARD, listening())
    assert "every machine that can reach this address; Authorization: Api-Key TOKEN; no TLS" in text
    assert "unencrypted" in text
    assert "--to 127.0.0.1:8000" in text
    assert "ssh -L 8000:127.0.0.1:8000" in text
    with_tls = start_text(ServeConfig(host="0.0.0.0"), CARD, listening(has_tls=True))
    assert "unencrypted" not in with_tls


def test_a_layout_of_ones_own_is_given_on_the_command_line():
    cfg = compose(
        "serve",
        ServeConfig,
        ["+layouts.lab={images:{front:a,wrist:b},state:[q,g],instruction:say}"],
    )
    assert cfg.layouts["lab"].images == {"front": "a", "wrist": "b"}
    assert cfg.layouts["lab"].state == ["q", "g"]


def test_without_websockets_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'vla\[serve\]'"):
        build.check_serving_installed()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://x"}, "policy.url is 'http://x'; expected ws://HOST:PORT"),
        ({"deadline_s": 0.0}, "policy.deadline_s must be positive; got 0.0"),
        ({"connect_timeout_s": -1.0}, "policy.connect_timeout_s must be positive"),
    ],
)
def test_settings_of_a_remote_policy_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError) as refused:
        PolicyConfig(**settings)
    assert message in str(refused.value)

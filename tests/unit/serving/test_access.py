import hmac

import pytest

from vla.errors import ConfigError
from vla.serving.access import Allowance, Gate, read_token, server_tls, server_token
from vla.serving.config import LimitsConfig, ServerConfig

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_token_in_the_environment(monkeypatch):
    monkeypatch.delenv("VLA_SERVE_TOKEN", raising=False)


def test_the_token_is_read_from_the_file_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_SERVE_TOKEN", "from the environment")
    assert read_token("", "VLA_SERVE_TOKEN") == "from the environment"
    file = tmp_path / "token"
    file.write_text("from the file\n")
    file.chmod(0o600)
    assert read_token(str(file), "VLA_SERVE_TOKEN") == "from the file"
    assert read_token("", "") is None


def test_a_token_file_that_is_missing_or_empty_is_refused_and_one_open_to_others_warned_of(
    tmp_path, caplog
):
    with pytest.raises(ConfigError, match="cannot read the token file"):
        read_token(str(tmp_path / "none"), "")
    file = tmp_path / "token"
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        read_token(str(file), "")
    file.write_text(TOKEN)
    file.chmod(0o644)
    read_token(str(file), "")
    assert "chmod 600" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_loopback_needs_no_token(host):
    assert server_token(ServerConfig(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "robot.lab", ""])
def test_any_other_address_needs_a_token(host, monkeypatch):
    with pytest.raises(ConfigError, match="needs a token: export VLA_SERVE_TOKEN"):
        server_token(ServerConfig(host=host))
    monkeypatch.setenv("VLA_SERVE_TOKEN", TOKEN)
    assert server_token(ServerConfig(host=host)) == TOKEN


def test_a_token_that_can_be_guessed_is_refused(monkeypatch):
    monkeypatch.setenv("VLA_SERVE_TOKEN", TOKEN[:-1])
    with pytest.raises(ConfigError, match="has 15 characters; use at least 16"):
        server_token(ServerConfig())


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Api-Key {TOKEN}", None),
        (f"api-key   {TOKEN} ", None),
        (f"Bearer {TOKEN}", None),
        (None, 401),
        ("", 401),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        (f"Api-Key {TOKEN}x", 401),
        (f"Api-Key {TOKEN[:-1]}", 401),
        ("Api-Key \udcff\u20ac", 401),
    ],
)
def test_only_the_right_token_passes(authorization, status):
    refusal = Gate(TOKEN).refusal(authorization, None)
    assert (refusal[0] if refusal else None) == status
    assert TOKEN not in str(refusal)


def test_web_pages_are_refused_with_or_without_token():
    assert Gate(None).refusal(None, "https://example.org") == (
        403,
        "requests from web pages are refused",
    )
    assert Gate(TOKEN).refusal(f"Api-Key {TOKEN}", "null") is not None
    assert Gate(None).refusal(None, None) is None


def test_an_allowance_lets_a_seconds_worth_pass_and_fills_up_again(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("vla.serving.access.time.monotonic", lambda: now[0])
    allowance = Allowance(5.0)
    assert [allowance.take() for _ in range(7)] == [True] * 5 + [False] * 2
    now[0] += 0.4
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now[0] += 100
    assert sum(allowance.take() for _ in range(10)) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 70000}, r"port must lie in \[0, 65535\]; got 70000"),
        ({"rest_port": -1}, "rest_port must lie in"),
        ({"port": 9000, "rest_port": 9000}, "both 9000"),
        ({"tls_certificate": "x.pem"}, "go together"),
    ],
)
def test_addresses_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ServerConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_message_mb": 0},
        {"deadline_s": -1},
        {"messages_per_s": float("nan")},
        {"max_clients": 0},
    ],
)
def test_limits_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"limits.{next(iter(settings))} must be"):
        LimitsConfig(**settings)


def test_an_unusable_certificate_is_refused(tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    config = ServerConfig(
        tls_certificate=str(tmp_path / "none.pem"), tls_key=str(tmp_path / "key.pem")
    )
    with pytest.raises(ConfigError, match="cannot use tls_certificate"):
        server_tls(config)
    assert server_tls(ServerConfig()) is None


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or False)
    assert Gate(TOKEN).refusal(f"Api-Key {TOKEN}", None) is not None
    assert compared == [(TOKEN.encode(), TOKEN.encode())]

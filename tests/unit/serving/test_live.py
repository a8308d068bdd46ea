import contextlib
import json
import socket
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("websockets", reason="the serve extra is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from vla.errors import ConfigError
from vla.serving.live import LivePage
from vla.serving.page_config import PageConfig

TOKEN = "a-token-of-twenty-ch"


@contextlib.contextmanager
def serving(**settings):
    page = LivePage(PageConfig(port=0, **settings))
    page.start()
    try:
        yield page
    finally:
        page.stop()


@contextlib.contextmanager
def look(page: LivePage, hello: str = "", **more):
    address = page.url.partition("#")[0].replace("http", "ws", 1) + "live"
    with connect(address, **more) as browser:
        browser.send(hello)
        yield browser


def await_browsers(page: LivePage) -> None:
    deadline = time.monotonic() + 10
    while not page.has_browsers:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_page_is_one_file_that_asks_nobody_else_for_anything():
    with serving() as page, urllib.request.urlopen(page.url) as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "<script src" not in text
    assert "<link" not in text
    assert "https://" not in text.replace('https:"', "")


def test_a_browser_gets_numbers_and_pictures():
    with serving() as page, look(page) as browser:
        await_browsers(page)
        page.show_state({"mode": "MOVE"})
        page.show_picture("front", b"jpeg")
        assert json.loads(browser.recv(timeout=10)) == {"mode": "MOVE"}
        assert browser.recv(timeout=10) == b"\x05frontjpeg"


def test_a_browser_that_comes_later_gets_the_newest_at_once():
    with serving() as page:
        page.show_state({"number": 1})
        page.show_state({"number": 2})
        with look(page) as browser:
            assert json.loads(browser.recv(timeout=10)) == {"number": 2}


def test_a_browser_that_reads_nothing_loses_the_oldest_and_holds_nobody_up():
    with serving() as page, look(page, max_queue=1) as browser:
        await_browsers(page)
        began_s = time.monotonic()
        for number in range(300):
            page.show_state({"number": number, "ballast": "x" * 200_000})
            time.sleep(0.001)
        assert time.monotonic() - began_s < 20
        deadline = time.monotonic() + 10
        while not page.counts.dropped and time.monotonic() < deadline:
            time.sleep(0.05)
        assert page.counts.dropped > 50
        last = -1
        while last < 299:  # what it reads in the end is the newest, in order
            number = json.loads(browser.recv(timeout=20))["number"]
            assert number > last
            last = number


def test_on_loopback_no_token_is_needed_and_elsewhere_the_address_carries_one():
    with serving() as page:
        assert "#" not in page.url
    with serving(host="0.0.0.0") as page:
        token = page.url.partition("#")[2]
        assert len(token) >= 16
        page.show_state({"number": 1})
        with look(page, token) as browser:
            assert json.loads(browser.recv(timeout=10)) == {"number": 1}
        with look(page, "guess") as browser, pytest.raises(ConnectionClosed):
            browser.recv(timeout=10)


def test_a_given_token_is_used_and_a_short_one_refused(monkeypatch):
    monkeypatch.setenv("VLA_PAGE_TOKEN", TOKEN)
    with serving() as page:
        assert page.url.endswith(f"#{TOKEN}")
    monkeypatch.setenv("VLA_PAGE_TOKEN", "short")
    with pytest.raises(ConfigError, match="the page's token has 5 characters"):
        LivePage(PageConfig())


def test_pages_of_other_sites_may_not_look():
    with serving() as page:
        with (
            pytest.raises(InvalidStatus, match="403"),
            look(page, origin="https://elsewhere.example"),
        ):
            pass
        foreign = urllib.request.Request(page.url, headers={"Host": "elsewhere.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(foreign)
        assert page.counts.refused == 2


def test_an_address_that_is_taken_is_named_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        page = LivePage(PageConfig(port=port))
        with pytest.raises(
            ConfigError, match=f"cannot listen at 127.0.0.1:{port} .*page.port=OTHER"
        ):
            page.start()


def test_browsers_are_told_the_last_state_before_the_page_ends():
    with serving() as page, look(page) as browser:
        await_browsers(page)
        page.show_state({"has_ended": True})
        page.stop()
        assert json.loads(browser.recv(timeout=10)) == {"has_ended": True}
        with pytest.raises(ConnectionClosed):
            browser.recv(timeout=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 70000}, "page.port"),
        ({"updates_per_s": 0}, "updates_per_s"),
        ({"image_size": 4}, "image_size"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PageConfig(**settings)

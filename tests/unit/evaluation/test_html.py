import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vla.errors import VlaError
from vla.evaluation import charts, html

VOID = {"meta", "img", "br", "link", "input"}


class _Balance(HTMLParser):
    """Collects tags and whether every one that opens also closes."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


@pytest.fixture
def document(tmp_path: Path) -> str:
    (tmp_path / "episodes.mp4").write_bytes(b"not really a film")
    (tmp_path / "scene.png").write_bytes(b"nor a picture")
    chart = charts.interval_chart([charts.Interval(label="after", value=0.5, low=0.4, high=0.6)])
    cards = [
        html.Card(title="Rate", html=chart, note="with <tags> & ampersands"),
        html.Card(html=html.table(["task", "n"], [["reach <1>", "50"]]), is_wide=True),
        html.Card(html=html.video(tmp_path / "episodes.mp4", "seed 1 & 2")),
        html.Card(html=html.picture(tmp_path / "scene.png", 'the "front" camera')),
        html.Card(html=html.facts({"torch": "2.11"}) + html.commands([("Run", "vla demo")])),
    ]
    page = html.Page(
        title="Open <the> drawer",
        kicker="demo",
        verdict="It learnt.",
        figures=[html.Figure(value="5 %", label="before", role="before")],
        sections=[html.Section(title="Success", lead="On unseen seeds.", cards=cards)],
    )
    return html.render(page)


def test_every_tag_that_opens_closes(document: str):
    parser = _Balance()
    parser.feed(document)
    assert parser.stack == []
    assert {"video", "svg", "table", "pre", "dl"} <= {tag for tag, _ in parser.tags}


def test_the_page_asks_nobody_for_anything(document: str):
    parser = _Balance()
    parser.feed(document)
    for tag, attributes in parser.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.findall(r"url\(|@import|https?://", document)


def test_text_from_outside_is_escaped(document: str):
    assert "Open &lt;the&gt; drawer" in document
    assert "reach &lt;1&gt;" in document
    assert "with &lt;tags&gt; &amp; ampersands" in document


def test_a_video_travels_inside_the_page(document: str):
    encoded = base64.b64encode(b"not really a film").decode()
    assert f"data:video/mp4;base64,{encoded}" in document


def test_the_page_has_colours_for_the_dark_and_fits_a_phone(document: str):
    assert "prefers-color-scheme: dark" in document
    assert "max-width: 720px" in document
    assert 'name="viewport"' in document


def test_every_role_of_a_chart_has_a_colour():
    style = html.STYLE_FILE.read_text()
    for role in ("before", "after", "train", "validation", "limit", "neutral"):
        assert f"--{role}:" in style
        assert f".fill.{role}" in style


def test_a_missing_video_is_refused_by_name(tmp_path: Path):
    with pytest.raises(VlaError, match=r"nothing\.mp4"):
        html.video(tmp_path / "nothing.mp4", "")

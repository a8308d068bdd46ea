"""A report as one HTML file: styles, charts and videos inside, nothing fetched, light and dark, fit for a phone."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from vla.errors import VlaError

STYLE_FILE = Path(__file__).with_name("report.css")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number large enough to be read across the room."""

    value: str
    label: str
    role: str = "neutral"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One box of a section: finished HTML (a chart, a table, a video) under a heading and above a remark.

    Attributes:
        html: trusted markup from this module or `vla.evaluation.charts`.
        note: plain text.
        is_wide: spans the page where there is room for two columns.
    """

    html: str
    title: str = ""
    note: str = ""
    is_wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, an opening sentence and its cards."""

    title: str
    lead: str = ""
    cards: Sequence[Card] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report; everything but the cards' html is plain text."""

    title: str
    kicker: str  # the small line above the title
    verdict: str  # the result in one sentence
    figures: Sequence[Figure] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""


def render(page: Page) -> str:
    """Returns the page as a complete HTML document."""
    figures = "".join(
        f'<div class="figure"><b class="ink {escape(item.role)}">{escape(item.value)}</b>'
        f"<span>{escape(item.label)}</span></div>"
        for item in page.figures
    )
    sections = "".join(_section(section) for section in page.sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(page.title)}</title><style>{STYLE_FILE.read_text(encoding='utf-8')}</style></head><body>"
        f'<header><p class="kicker">{escape(page.kicker)}</p><h1>{escape(page.title)}</h1>'
        f'<p class="verdict">{escape(page.verdict)}</p><div class="figures">{figures}</div></header>'
        f"<main>{sections}</main><footer>{escape(page.footer)}</footer></body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numeric_from: int = 1) -> str:
    """Returns a table of plain text; columns from `numeric_from` on are aligned as numbers."""
    classes = ["" if column < numeric_from else ' class="number"' for column in range(len(head))]
    top = "".join(
        f"<th{kind}>{escape(name)}</th>" for name, kind in zip(head, classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(pairs: Mapping[str, str]) -> str:
    """Returns names with their values, one a line."""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items()
    )
    return f"<dl>{rows}</dl>"


def commands(lines: Sequence[tuple[str, str]]) -> str:
    """Returns shell commands, each under a sentence that says what it is good for."""
    items = "".join(
        f"<li><span>{escape(purpose)}</span><pre><code>{escape(command)}</code></pre></li>"
        for purpose, command in lines
    )
    return f'<ol class="commands">{items}</ol>'


def video(path: Path, caption: str) -> str:
    """Returns a looping, muted player with the file inside; raises VlaError when the file cannot be read."""
    source = _data_uri(path, "video/mp4")
    return (
        f'<figure><video src="{source}" autoplay loop muted playsinline controls></video>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def picture(path: Path, caption: str) -> str:
    """Returns an image with the file inside; raises VlaError when the file cannot be read."""
    source = _data_uri(path, "image/png")
    return f'<figure><img src="{source}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _section(section: Section) -> str:
    lead = f'<p class="lead">{escape(section.lead)}</p>' if section.lead else ""
    cards = "".join(_card(card) for card in section.cards)
    return (
        f'<section><h2>{escape(section.title)}</h2>{lead}<div class="cards">{cards}</div></section>'
    )


def _card(card: Card) -> str:
    title = f"<h3>{escape(card.title)}</h3>" if card.title else ""
    note = f'<p class="note">{escape(card.note)}</p>' if card.note else ""
    wide = " wide" if card.is_wide else ""
    return f'<div class="card{wide}">{title}{card.html}{note}</div>'


def _data_uri(path: Path, fallback_type: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VlaError(
            f"cannot put {path} into the report ({error.strerror}); run the phase that writes it"
        ) from error
    kind = mimetypes.guess_type(path.name)[0] or fallback_type
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"

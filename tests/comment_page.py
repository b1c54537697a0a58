"""What GitHub makes of a comment: its Markdown as HTML, and what it turns into links and pictures afterwards."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import cmarkgfm
from cmarkgfm.cmark import Options

# Comments keep line breaks; raw HTML passes Markdown and is judged by what it is.
OPTIONS = Options.CMARK_OPT_UNSAFE | Options.CMARK_OPT_FOOTNOTES | Options.CMARK_OPT_HARDBREAKS
EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
QUIET = {"a", "pre", "code", "tt", "style", "script"}  # GitHub looks for references outside of these
SILENT = {
    *("p", "br", "hr", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "strong", "em", "code", "pre", "sub", "del"),
    *("ins", "span", "details", "summary", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {("td", "align"), ("th", "align"), ("details", "open"), ("pre", "lang"), ("ol", "start")}
REFERENCES = {
    "mention or e-mail address": re.compile(r"@[A-Za-z0-9_]"),
    "issue": re.compile(r"#[0-9]|\b(?:GH|[A-Za-z]+)-[0-9]|GHSA-\w", re.IGNORECASE),
    "commit": re.compile(r"(?<!\d\.)(?<![0-9a-f])[0-9a-f]{7}", re.IGNORECASE),
    "address": re.compile(
        r"[a-z][a-z0-9+.-]*://|www\.\w|(?:mailto|xmpp|javascript|vbscript|data):[^\s\u200b\u2069]", re.IGNORECASE
    ),
    "emoji": re.compile(r":[\w+-]+:"),
    "formula": re.compile(r"\$"),
}
HIDDEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u180e\u200c-\u200f\u202a-\u202e\u2028\u2029\u2060-\u2065"
    "\u206a-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ud800-\udfff\U000e0000-\U000e0fff]|[\u0300-\u036f]{5}"
)


class Page(HTMLParser):
    """A rendered page: its elements in order, and its texts with what encloses them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.comments: list[str] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.unbalanced.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self._open), data))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_decl(self, decl: str) -> None:
        self.unbalanced.append(f"!{decl}")

    def handle_pi(self, data: str) -> None:
        self.unbalanced.append(f"?{data}")

    @property
    def skeleton(self) -> list[str]:
        """Elements without those that only colour a word: what a table or a fold consists of."""
        return [tag for tag, _ in self.elements if tag not in ("code", "span", "ins", "del")]

    def inside(self, tag: str) -> list[str]:
        """Texts within such elements."""
        return [text for enclosing, text in self.texts if tag in enclosing]


def render(markdown: str) -> Page:
    """Render Markdown with GitHub's own parser."""
    return Page(cmarkgfm.github_flavored_markdown_to_html(markdown, OPTIONS))


COMMAND = re.compile(r"^[^\S\n]*::|##\[", re.MULTILINE)  # what a runner obeys when it stands in a log


def alive(page: Page) -> list[str]:
    """Name everything on a page that links, notifies, loads, hides or is drawn as something else.

    Args:
        page: A rendered comment. Alerts (`> [!NOTE]`) count too, wherever they are.
    """
    found = [f"element {tag}" for tag, _ in page.elements if tag not in SILENT]
    found += [
        f"attribute {name} of {tag}"
        for tag, attributes in page.elements
        for name in attributes
        if (tag, name) not in ATTRIBUTES
    ]
    found += [f"unbalanced {tag}" for tag in page.unbalanced] + [f"comment {text}" for text in page.comments]
    for enclosing, text in page.texts:
        if HIDDEN.search(text):
            found.append(f"hidden character in {text[:80]!r}")
        if enclosing[-1:] == ("span",) and text == "$":  # how GitHub wants a dollar written that opens no formula
            continue
        if not QUIET & set(enclosing):
            found += [f"{what} in {text[:80]!r}" for what, kind in REFERENCES.items() if kind.search(text)]
            if re.match(r"\s*\[(![A-Z]|[ xX]\])", text) and {"blockquote", "li"} & set(enclosing):
                found.append(f"alert or task in {text[:80]!r}")
    return found

"""Checks every link between the built pages, and every file that the source tree's Markdown files link to.

    python docs/check_links.py build/docs

Links to other hosts are not followed: whether they work does not depend on this tree.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
#: An inline link or image of Markdown. An absolute URL, and an anchor of the same page, are not looked at.
MARKDOWN_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")


class Page(HTMLParser):
    """Collects what a page links to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """HTMLParser calls this for each tag."""
        for name, value in attrs:
            if name in {"href", "src"} and value:
                self.links.add(value)
            elif name in {"id", "name"} and value:
                self.anchors.add(value)


def broken_in_pages(folder: Path) -> list[str]:
    """Links of built pages whose file or anchor does not exist."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    if not pages:
        return [f"{folder}: no pages"]
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(folder.resolve())}: {link}")
    return broken


def broken_in_sources() -> list[str]:
    """Links of Markdown files of the tree whose file does not exist."""
    files = [*ROOT.glob("*.md"), *(path for name in ("bench", "docs", "tests") for path in (ROOT / name).rglob("*.md"))]
    return [
        f"{path.relative_to(ROOT)}: {link}"
        for path in sorted(files)
        for link in MARKDOWN_LINK.findall(path.read_text("utf-8"))
        if not (path.parent / link).exists()
    ]


def main() -> int:
    """Prints broken links; returns 0 if there are none."""
    broken = [*broken_in_pages(Path(sys.argv[1])), *broken_in_sources()]
    print("\n".join(broken) or "all links inside work")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())

"""The documentation as a site: complete, with links that lead somewhere, and readable without a network."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from mlpexp import extend
from mlpexp.config import schema

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs/site"))

import reference  # noqa: E402

REGISTRIES = list(reference.registries())


def test_the_reference_has_every_key_with_its_default():
    text = reference.keys_page()
    for key, default, _ in schema.keys():
        if key not in schema.NOT_TYPED:
            assert f"| `{key}` | `{reference.spell(default)}` |" in text


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_the_reference_has_every_entry_of_a_registry(registry):
    section = reference.entries_page().split(f"## {registry.kind}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(registry)
    assert len({row.count(" | ") for row in rows}) == 1


def test_the_reference_has_every_public_name():
    text = reference.python_page()
    for name in extend.__all__:
        assert re.search(rf"^::: mlpexp\.extend\.\w+\.{name}$", text, re.MULTILINE)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []  # that a reader can follow
        self.loaded: list[str] = []  # that the browser loads by itself
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("img", "script") and given.get("src"):
            self.loaded.append(given["src"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.loaded.append(given["href"])


@pytest.mark.thorough
def test_the_site_is_built_without_warnings_and_its_links_lead_somewhere(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    ended = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert ended.returncode == 0, ended.stderr
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("*.html")}
    assert len(pages) > 25
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links start at the address of the site
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert link not in page.loaded, f"{path.name} loads {link}"
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert goal.exists(), f"{path.name}: {link}"
            if parts.fragment and goal in pages:
                assert unquote(parts.fragment) in pages[goal].names, f"{path.name}: {link}"

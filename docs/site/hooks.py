"""mkdocs hooks: the site has the pages of the repository at their places there, and the generated reference.

So a relative link leads to the same page on the site and in the repository.
"""

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "docs/**/*.md", "benchmarks/*.md")
# what pages show or link to
LINKED = ("docs/**/*.png", "docs/**/*.svg", "benchmarks/*.svg", "examples/*.ipynb", "src/mlpexp/nn/network.py")
# the theme loads this from another host; the copy beside this file is version 1.0.4, for the search in pages on disk
SHIM, COPY = "https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js"


def on_config(config: Any) -> Any:
    """Pages that the navigation does not name are added to it, below `Further`."""
    named = str(config.nav)
    pages = sorted(
        path.relative_to(ROOT).as_posix() for folder in ("docs", "benchmarks") for path in (ROOT / folder).rglob("*.md")
    )
    if further := [page for page in pages if page not in named]:
        config.nav.append({"Further": further})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Every page and linked file, by its path in the repository."""
    sys.path.insert(0, str(HERE))
    import reference

    theme = [file for file in files if file.abs_src_path and not Path(file.abs_src_path).is_relative_to(ROOT / "docs")]
    found = {path for pattern in (*PAGES, *LINKED) for path in ROOT.glob(pattern) if path.is_file()}
    ours = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in sorted(found)]
    ours.append(File.generated(config, COPY, abs_src_path=str(HERE / "iframe-worker.js")))
    ours.append(File.generated(config, "assets/site.css", abs_src_path=str(HERE / "site.css")))
    generated = [File.generated(config, name, content=text) for name, text in reference.pages().items()]
    return Files([*theme, *ours, *generated])


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The page with the local copy of the script."""
    return output.replace(SHIM, "../" * page.url.count("/") + COPY)

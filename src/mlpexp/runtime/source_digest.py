"""The digest of a user's Python code: a module with the user's modules that it imports, read without executing them."""

import ast
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}  # directories of installed packages


def file_digest(file: Path) -> str:
    """SHA-256 of the source of a module and of the user's modules that it imports; nothing is executed."""
    return digest(source_files(file), root_of(file))


def source_files(file: Path) -> tuple[Path, ...]:
    """A module's file and those of the user's modules that it imports, recursively; nothing is executed."""
    root, files, queue = root_of(file), {file}, [file]
    top = file.relative_to(root).parts[0]
    while queue:
        path = queue.pop()
        package = path.relative_to(root).parts[:-1]
        for components in _imports(path, package):
            if components[0] in sys.stdlib_module_names or components[0] == "mlpexp":
                continue
            if INSTALLED & set(root.parts) and components[0] != top:
                continue
            for count in range(1, len(components) + 1):  # the packages above a module are imported, too
                base = root.joinpath(*components[:count])
                for candidate in (base / "__init__.py", base.with_suffix(".py")):
                    if (
                        candidate.is_file()
                        and (imported := candidate.resolve()) not in files
                        and root in imported.parents
                    ):
                        files.add(imported)
                        queue.append(imported)
    return tuple(sorted(files))


def _imports(file: Path, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # importing it gives the message
    if package:
        yield package
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = (*above, *(node.module.split(".") if node.module else ()))
            yield from ((*base, alias.name) for alias in node.names if alias.name != "*" or not base)
            if base:
                yield base


def root_of(file: Path) -> Path:
    """The directory that holds a module, or the outermost package around it."""
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    return root


def digest(files: Sequence[Path], root: Path) -> str:
    """SHA-256 of the files, each with its path below `root` and without differences of line ends."""
    content = hashlib.sha256()
    for file in files:
        text = file.read_bytes().replace(b"\r\n", b"\n")
        content.update(f"{file.relative_to(root).as_posix()}\n{len(text)}\n".encode() + text)
    return content.hexdigest()

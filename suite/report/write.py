"""Writes the report: all files of one run are made first, then put in place one by one, each whole."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from suite import __version__
from suite.report import figures, words
from suite.report.content import Content, arrange
from suite.report.reading import read_folder
from suite.types import BadInput

MARK = "written by kendall report"
"""Stands near the top of every file; a file without it is somebody else's, and is not overwritten."""

PAGES = ("report.html", "report.md", "leaderboard.tex", "consistency.tex")
FIGURES = "figures"


def write_report(folder: Path) -> Path:
    """Makes a folder's report from its CSV and JSON files, and from those of its immediate sub-folders.

    Writes `report.html` (one file, nothing is fetched), `report.md`, `leaderboard.tex`, `consistency.tex` and
    `figures/*.svg`, `figures/*.png`. Sections whose files are not there are left out. The same input gives the same
    bytes; an earlier report is replaced, any other file of these names is refused.

    Returns:
        The path of `report.html`.

    Raises:
        BadInput: Nothing to report, a file that breaks the folder's contract, or a folder that cannot be written.
    """
    content, drawn = figures.draw(arrange(read_folder(folder)), MARK)
    files = {Path(name): text.encode() for name, text in render(content, drawn).items()}
    for name, figure in drawn.items():
        files[Path(FIGURES, f"{name}.svg")], files[Path(FIGURES, f"{name}.png")] = figure.svg, figure.png
    _put(folder, files)
    return folder / "report.html"


def render(content: Content, drawn: Mapping[str, figures.Drawn]) -> dict[str, str]:
    """The text of each page by file name; a LaTeX table without rows is left out."""
    said: dict[str, Any] = {
        "content": content,
        "drawn": drawn,
        "mark": MARK,
        "version": __version__,
        "colour": lambda searcher: figures.colour(content, searcher),
        "w": words,
        "inf": math.inf,
        "nan": math.nan,
    }
    pages = {"report.html": _html().get_template("report.html").render(said)}
    pages["report.md"] = _plain(_escape_markdown).get_template("report.md").render(said)
    latex = _plain(_escape_latex, line_comment=None)
    if content.leaderboards:
        pages["leaderboard.tex"] = latex.get_template("leaderboard.tex").render(said)
    if content.studies:
        pages["consistency.tex"] = latex.get_template("consistency.tex").render(said)
    return pages


def _html() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("suite.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def _plain(escape: Callable[[str], str], **options: Any) -> Any:
    """Templates of other languages: every value goes through their escape, unless it is marked as markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) else escape(str(value))

    environment = Environment(
        loader=PackageLoader("suite.report"), finalize=finalize, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, block_start_string="<%", block_end_string="%>",
        variable_start_string="<<", variable_end_string=">>", comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    environment.filters["code"] = lambda text: Markup(_code(str(text)))
    environment.filters["cell_code"] = lambda text: Markup(_code(str(text)).replace("|", "\\|"))
    environment.filters["fence"] = lambda text: Markup(_fence(str(text)))
    return environment


def _escape_markdown(text: str) -> str:
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_|[]#~$" else c for c in text)


def _code(text: str) -> str:
    """A code span that may itself hold back-ticks."""
    text = " ".join(text.split())
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}" if text else ""


def _fence(text: str) -> str:
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}\n{text}\n{ticks}"


def _longest_run(text: str) -> int:
    longest = run = 0
    for c in text:
        run = run + 1 if c == "`" else 0
        longest = max(longest, run)
    return longest


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "×": r"$\times$", "–": "--", "µ": r"\textmu{}", "…": r"\ldots{}",
    "[": "{[}", "]": "{]}",
}  # fmt: skip


def _escape_latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in " ".join(text.split()))


def _put(folder: Path, files: Mapping[Path, bytes]) -> None:
    """Replaces our own earlier files, after making sure that none of them is anybody else's."""
    try:
        stale = [
            path.relative_to(folder)
            for path in (*(folder / page for page in PAGES), *sorted((folder / FIGURES).glob("*.*")))
            if path.suffix in (".svg", ".png", ".tex", ".md") and path.relative_to(folder) not in files and _ours(path)
        ]
        for name in files:
            if (folder / name).exists() and not _ours(folder / name):
                raise BadInput(f"{folder / name}: exists and is not a report's; move it away or report elsewhere")
        if any(name.parent.name for name in files):
            (folder / FIGURES).mkdir(exist_ok=True)
        for name, data in files.items():
            _replace(folder / name, data)
        for name in stale:
            (folder / name).unlink()
    except OSError as error:
        raise BadInput(f"{folder}: the report cannot be written there: {error.strerror or error}") from error


def _ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(4096)


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise

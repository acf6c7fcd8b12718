"""`resdeploy bench`: validate, call `bench`, print, save."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from resdeploy.deploy.cli.options import (
    BATCH_TYPE,
    SECONDS_TYPE,
    THREADS_TYPE,
    BundlePath,
    backends_option,
    json_option,
    precisions_option,
)
from resdeploy.deploy.cli.output import note, print_json, print_table, print_what_fits, progress_bar
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.defaults import BENCH_BATCHES, BENCH_SECONDS
from resdeploy.deploy.specs import Backend, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.benchmark.report import BenchReport

# columns of the table, from the one that a narrow terminal drops last
_IMPORTANCE = ("p50 ms (95 % interval)", "images/s", "batch", "p99", "peak MB", "backend", "p90")
_BUSY = 0.5  # load per core, beyond which times say more about the neighbours


def _batches(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        batches = tuple(int(part) for part in text.split(","))
    except ValueError:
        batches = ()
    if not batches:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers from 1, e.g. 1,8")
    return tuple(BATCH_TYPE.convert(batch, parameter, ctx) for batch in batches)


def _file_name(ctx: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[\w.-]+", text):
        raise click.BadParameter(f"{text!r}: use letters, digits, dots, hyphens and underscores")
    return text


@click.command(
    cls=Command,
    epilog="resdeploy bench flowers.bundle --batch 1,8\n"
    "resdeploy bench flowers.bundle --precision int8 --compare before.json",
)
@click.argument("bundle", type=BundlePath())
@precisions_option
@backends_option
@click.option(
    "--batch",
    "batches",
    default=",".join(map(str, BENCH_BATCHES)),
    show_default=True,
    callback=_batches,
    metavar="LIST",
    help="Batch sizes to time.",
)
@click.option(
    "--seconds",
    type=SECONDS_TYPE,
    default=BENCH_SECONDS,
    show_default=True,
    help="How long each precision, backend and batch is timed.",
)
@click.option("--threads", type=THREADS_TYPE, help="CPU threads.  [default: all cores]")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Images to decode for the timing.  [default: a synthetic one]",
)
@click.option(
    "--compare",
    "earlier",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with the JSON of an earlier run.",
)
@click.option(
    "--chart",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Draw latency by batch.",
)
@click.option(
    "--save",
    "name",
    metavar="NAME",
    callback=_file_name,
    help="Keep the result in BUNDLE as reports/bench-NAME.json.",
)
@json_option
def bench(
    bundle: Path,
    precisions: tuple[Precision, ...],
    backends: tuple[Backend | Literal["auto"], ...],
    batches: tuple[int, ...],
    seconds: float,
    threads: int | None,
    data: Path | None,
    earlier: Path | None,
    chart: Path | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Time BUNDLE's precisions on this machine, in turns, and show where the time goes.

    Peak MB is the resident memory of a process that only opens that precision and runs one image.
    """
    from resdeploy.deploy.benchmark.bench import bench as bench_bundle
    from resdeploy.deploy.benchmark.report import compare_results
    from resdeploy.deploy.files import check_writable, write_text

    check_writable(chart)
    before = None if earlier is None else _read(earlier)
    with progress_bar(hidden=as_json) as progress:
        report = bench_bundle(
            bundle, precisions=precisions, backends=backends, batches=batches, seconds=seconds,
            threads=threads, data=data, progress=progress,
        )  # fmt: skip
    content = report.to_json()
    if before is not None:
        content["compared"] = compare_results(content, before)
    _keep(bundle, content, name)
    if chart is not None:
        from resdeploy.deploy.verification.reports.charts import latency_chart

        write_text(chart, latency_chart(content))
    if as_json:
        print_json(content)
    else:
        _print_report(bundle, report, content)


def _keep(bundle: Path, content: dict[str, Any], name: str | None) -> None:
    """Keep the result in the bundle: under its name, else for the page that `verify` writes.

    A run that timed less than what is kept there does not replace it.
    """
    from resdeploy.deploy.benchmark.report import is_fuller
    from resdeploy.deploy.bundle.bundle import REPORTS, save_in_bundle
    from resdeploy.deploy.errors import InputError

    file = "bench.json" if name is None else f"bench-{name}.json"
    try:
        kept = _read(bundle / REPORTS / file)
    except InputError:
        kept = None
    if is_fuller(kept, content):
        advice = "another name" if name else "--save NAME"
        note(f"note: {REPORTS}/{file} has more results and was kept; {advice} keeps both")
        return
    save_in_bundle(bundle, file, content)


def _read(path: Path) -> Any:
    from resdeploy.deploy.errors import InputError
    from resdeploy.deploy.reading import read_json

    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error


def _print_report(bundle: Path, report: "BenchReport", content: dict[str, Any]) -> None:
    machine, count = content["machine"], len(content["results"])
    columns = (
        "variant", "backend", ">batch", ">p50 ms (95 % interval)", ">p90", ">p99",
        ">images/s", ">peak MB",
    )  # fmt: skip
    print_what_fits(
        columns, [row(result) for result in content["results"]], _IMPORTANCE,
        hint="a pipe and --json have all", title=title(machine),
    )  # fmt: skip
    stages = [(name.replace("_", " "), f"{ms:.2f}") for name, ms in content["stages_ms"].items()]
    whole = [
        (f"{name}, from file to classes", f"{ms:.2f}")
        for name, ms in content["end_to_end_ms"].items()
    ]
    print_table((f"one image ({report.images})", ">ms"), [*stages, *whole])
    if "compared" in content:
        rows = [
            (r["variant"], r["backend"], str(r["batch"]), in_words(r)) for r in content["compared"]
        ]
        titles = ("variant", "backend", ">batch", "median against the earlier one")
        print_table(titles, rows)
    for remark in remarks(content):
        note(f"note: {remark}")
    _print_power(content)
    finish(
        f"timed {count} combination{'s' if count > 1 else ''}",
        f"resdeploy predict {as_typed(bundle)} IMAGE --precision auto",
        f"resdeploy serve {as_typed(bundle)}",
    )


def _print_power(content: dict[str, Any]) -> None:
    """Only where the board has a monitor, as a Jetson has."""
    rows = [
        (r["variant"], r["backend"], str(r["batch"]), f"{r['watts']:.1f}",
         f"{r['images_per_joule']:.1f}")
        for r in content["results"]
        if r["watts"] is not None
    ]  # fmt: skip
    if rows:
        print_table(("variant", "backend", ">batch", ">watts", ">images/joule"), rows)


def remarks(content: dict[str, Any]) -> list[str]:
    """What a reader of a result must know of how far its times can be trusted."""
    machine, results = content["machine"], content["results"]
    said = []
    restless = sum(not result["steady"] for result in results)
    if restless:
        verb = "timings were" if len(results) > 1 else "timing was"
        said.append(f"{restless} of {len(results)} {verb} not steady after the warm-up")
    if machine["jetson"] and machine["clocks_pinned"] is False:
        said.append("the clocks were not pinned: sudo jetson_clocks makes times steady")
    load = machine["load_average_1min"]
    if load is not None and load > _BUSY * machine["cores"]:
        said.append(f"the load was {load} on {machine['cores']} cores before the timing began")
    return said


def title(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    parts = [machine["cpu"], f"{machine['threads']} threads"]
    parts += [machine[key] for key in ("gpu", "jetson", "power_mode", "governor") if machine[key]]
    parts += ["clocks pinned"] if machine["clocks_pinned"] else []
    return ", ".join(parts)


def row(result: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table: the variant that ran, on a backend at a batch."""
    low, high = result["p50_ci95_ms"]
    peak = result["peak_memory_bytes"]
    return (
        result["variant"],
        result["backend"],
        str(result["batch"]),
        f"{result['p50_ms']:.2f} ({low:.2f} … {high:.2f})",
        f"{result['p90_ms']:.2f}",
        f"{result['p99_ms']:.2f}",
        f"{result['images_per_second']:.1f}",
        "unknown" if peak is None else f"{peak / 1e6:.0f}",
    )


def in_words(compared: dict[str, Any]) -> str:
    """E.g. "8 % slower (−2 … +19 %): within noise"; an interval around 0 says nothing."""
    change, low, high = (
        100 * (ratio - 1) for ratio in (compared["ratio"], *compared["ratio_ci95"])
    )
    what = f"{abs(change):.0f} % {'slower' if change > 0 else 'faster'}"
    noise = ": within noise" if low <= 0 <= high else ""
    return f"{what} ({low:+.0f} … {high:+.0f} %){noise}"

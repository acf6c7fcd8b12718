"""`resdeploy bench`: validate, call `bench`, print, save."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resdeploy.deploy.commands import json_option
from resdeploy.deploy.output import note, print_json, print_table, progress_bar
from resdeploy.deploy.verify_commands import backends_option, precisions_option

if TYPE_CHECKING:
    from resdeploy.deploy.bench_report import BenchReport

_BUSY = 0.5  # load per core, beyond which times say more about the neighbours


def _batches(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        batches = tuple(int(part) for part in text.split(","))
    except ValueError:
        batches = ()
    if not batches or min(batches) < 1:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers from 1, e.g. 1,8")
    return batches


@click.command(epilog="Example: resdeploy bench flowers.bundle --batch 1,8 --compare before.json")
@click.argument("bundle", type=click.Path(path_type=Path))
@precisions_option
@backends_option
@click.option(
    "--batch", "batches", default="1,8", show_default=True, callback=_batches, metavar="LIST"
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Timed runs of every precision, backend and batch.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Pictures whose decoding is timed.  [default: a synthetic one]",
)
@click.option(
    "--compare",
    "earlier",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Print ratios to an earlier --json.",
)
@click.option(
    "--chart",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Draw latency by batch.",
)
@json_option
def bench(
    bundle: Path, earlier: Path | None, chart: Path | None, as_json: bool, **options: Any
) -> None:
    """Time BUNDLE's precisions on this machine, in turns, and show where the time goes.

    Peak MB is the resident memory of a process that only opens that precision and runs one picture.
    """
    from resdeploy.deploy.bench_report import compare_results
    from resdeploy.deploy.benchmark import bench as bench_bundle
    from resdeploy.deploy.written import check_writable, save_in_bundle, write_text

    check_writable(chart)
    before = None if earlier is None else _read(earlier)
    with progress_bar(hidden=as_json) as progress:
        report = bench_bundle(bundle, progress=progress, **options)
    content = report.to_json()
    if before is not None:
        content["compared"] = compare_results(content, before)
    save_in_bundle(bundle, "bench.json", json.dumps(content, indent=1) + "\n")
    if chart is not None:
        from resdeploy.deploy.charts import latency_chart

        write_text(chart, latency_chart(content))
    if as_json:
        print_json(content)
    else:
        _print_report(report, content)


def _read(path: Path) -> Any:
    from resdeploy.deploy.errors import InputError

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error


def _print_report(report: "BenchReport", content: dict[str, Any]) -> None:
    machine = content["machine"]
    columns = (
        "precision", "backend", ">batch", ">p50 ms (95 % interval)", ">p90", ">p99",
        ">pictures/s", ">peak MB",
    )  # fmt: skip
    print_table(columns, [_row(result) for result in content["results"]], title=_title(machine))
    stages = [(name.replace("_", " "), f"{ms:.2f}") for name, ms in content["stages_ms"].items()]
    whole = [(f"{name}, all", f"{ms:.2f}") for name, ms in content["end_to_end_ms"].items()]
    print_table((f"one picture of {report.pictures}", ">ms"), [*stages, *whole])
    if "compared" in content:
        rows = [
            (r["precision"], r["backend"], str(r["batch"]), _ratio(r)) for r in content["compared"]
        ]
        print_table(("precision", "backend", ">batch", ">p50 to the earlier one"), rows)
    restless = [r for r in content["results"] if not r["steady"]]
    if restless:
        note(f"note: {len(restless)} of {len(content['results'])} did not become steady in warm-up")
    if machine["jetson"] and machine["clocks_pinned"] is False:
        note("note: the clocks were not pinned: sudo jetson_clocks makes times steady")
    load = machine["load_average_1min"]
    if load is not None and load > _BUSY * machine["cores"]:
        note(f"note: the load was {load} on {machine['cores']} cores before the timing began")


def _title(machine: dict[str, Any]) -> str:
    parts = [machine["cpu"], f"{machine['threads']} threads"]
    parts += [machine[key] for key in ("gpu", "jetson", "power_mode", "governor") if machine[key]]
    parts += ["clocks pinned"] if machine["clocks_pinned"] else []
    return ", ".join(parts)


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    low, high = result["p50_ci95_ms"]
    peak = result["peak_memory_bytes"]
    return (
        result["precision"],
        result["backend"],
        str(result["batch"]),
        f"{result['p50_ms']:.2f} ({low:.2f} … {high:.2f})",
        f"{result['p90_ms']:.2f}",
        f"{result['p99_ms']:.2f}",
        f"{result['images_per_second']:.1f}",
        "unknown" if peak is None else f"{peak / 1e6:.0f}",
    )


def _ratio(compared: dict[str, Any]) -> str:
    low, high = compared["ratio_ci95"]
    return f"{compared['ratio']:.3f}x ({low:.3f} … {high:.3f})"

"""`resdeploy triton`: validate, call `write_repository`, print."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from resdeploy.deploy.cli.options import BATCH_TYPE, BundlePath, json_option, max_wait_option
from resdeploy.deploy.cli.output import print_json, print_table
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.defaults import SERVED_BATCH
from resdeploy.deploy.specs import PRECISIONS, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.serving.triton.repository import TritonBackend


@click.command(
    cls=Command,
    epilog="resdeploy triton flowers.bundle -o repository --precision int8\n"
    "resdeploy triton flowers.bundle digits.bundle -o repository",
)
@click.argument("bundles", nargs=-1, required=True, type=BundlePath(), metavar="BUNDLE...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="REPOSITORY",
    help="Folder to write, which must not exist yet.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What to serve.  [default: fp32, or what a lone file holds]",
)
@click.option(
    "--backend",
    type=click.Choice(("ort-cpu", "ort-cuda", "ort-tensorrt", "tensorrt", "python")),
    default="ort-cpu",
    show_default=True,
    help="What Triton runs the network with; tensorrt takes the engine in the bundle, python "
    "needs no ONNX backend.",
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Inferences at the same time on each device.",
)
@click.option(
    "--max-batch",
    type=BATCH_TYPE,
    default=SERVED_BATCH,
    show_default=True,
    help="Images of one inference.",
)
@max_wait_option
@click.option(
    "--kserve",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.yaml",
    help="Also write a KServe InferenceService for the repository.",
)
@click.option(
    "--k8s",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.yaml",
    help="Also write a Deployment with a Service and an autoscaler.",
)
@click.option(
    "--storage-uri",
    metavar="URI",
    help="Where they will find the repository, e.g. pvc://models/repository.",
)
@json_option
def triton(
    bundles: tuple[Path, ...],
    output: Path,
    precision: Precision | None,
    backend: "TritonBackend",
    instances: int,
    max_batch: int,
    max_wait_ms: float,
    kserve: Path | None,
    k8s: Path | None,
    storage_uri: str | None,
    as_json: bool,
) -> None:
    """Write a model repository for NVIDIA Triton from BUNDLEs.

    Each bundle becomes three models: NAME (the network), NAME_preprocess (Python) and NAME_images,
    which takes encoded images.
    """
    if (kserve is None and k8s is None) != (storage_uri is None):
        raise click.UsageError("--kserve or --k8s and --storage-uri go together")
    from resdeploy.deploy.files import check_writable, write_text
    from resdeploy.deploy.serving.repository import sources
    from resdeploy.deploy.serving.triton.repository import TritonOptions, write_repository

    check_writable(kserve, k8s)
    options = TritonOptions(backend, instances, max_batch, max_wait_ms)
    found = sources(bundles, () if precision is None else (precision,))
    gpu = backend not in ("ort-cpu", "python")
    manifests = _manifests(kserve, k8s, found[0].name, storage_uri or "", gpu=gpu)
    names = write_repository(found, output, options)
    for file, text in manifests.items():
        write_text(file, text)
    if as_json:
        print_json({"repository": str(output), "models": list(names)})
    else:
        print_table((f"models in {output}",), [(name,) for name in names])
        verify = f"resdeploy verify {as_typed(bundles[0])} --data DIR"
        finish("written", f"tritonserver --model-repository={as_typed(output)}", verify)


def _manifests(
    kserve: Path | None, k8s: Path | None, name: str, storage_uri: str, *, gpu: bool
) -> dict[Path, str]:
    """The files to write and their text, before anything is written."""
    from resdeploy.deploy.serving.triton.kserve import inference_service
    from resdeploy.deploy.serving.triton.kubernetes import deployment

    found = {}
    if kserve is not None:
        found[kserve] = inference_service(name, storage_uri, gpu=gpu)
    if k8s is not None:
        found[k8s] = deployment(name, storage_uri, gpu=gpu)
    return found

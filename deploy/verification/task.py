"""What a verification is asked to do, read and checked before minutes of work."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from resdeploy.deploy.bundle.model import Model, open_model
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images, read_data
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.verification.baseline import Baseline, read_baseline
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.device.address import Device
from resdeploy.deploy.verification.features.verify import refuse_about_classes
from resdeploy.deploy.verification.release import Release, find_release


@dataclass(frozen=True)
class Task:
    """What is verified, read and checked before minutes of work."""

    path: Path
    model: Model
    images: Images | None
    baseline: Baseline | None
    release: Release | Baseline | None
    limits: Limits
    device: Device | None
    seed: int
    progress: Progress


def read_task(
    bundle: StrPath,
    data: StrPath | Images | None,
    baseline: StrPath | None,
    against: StrPath | None,
    limits: Limits,
    device: Device | None,
    seed: int,
    progress: Progress,
) -> Task:
    """Read everything that is named, the images excepted; arguments as for `verify.verify`.

    Raises:
        InputError: limits, images or earlier answers that cannot be used.
        BundleError: no bundle, or a damaged one.
    """
    limits.checked(images=data is not None)
    if device is not None and limits.max_slower is not None:
        raise InputError(
            f"--max-slower would time the line to {device.host}, not its sessions: run resdeploy "
            "verify --max-slower there"
        )
    model = open_model(bundle)
    if model.is_engine:
        raise InputError(
            f"{bundle}: an engine, which has no recorded answers to be held to: verify the bundle "
            "it was built from, with --backend tensorrt"
        )
    if model.manifest.features:
        refuse_about_classes(model, limits, {"--baseline": baseline, "--against": against})
    images = data if isinstance(data, Images) else None
    if isinstance(data, str | PathLike):
        images = read_data(Path(data), model.manifest.labels)
    if baseline is not None and images is None:
        raise InputError(f"{baseline}: a baseline needs the images it was saved with: add --data")
    if against is not None and images is None:
        raise InputError(f"{against}: comparing releases needs images: add --data DIR")
    earlier = None if baseline is None else read_baseline(Path(baseline), model.manifest)
    release = None if against is None else _release(Path(against), model)
    return Task(Path(bundle), model, images, earlier, release, limits, device, seed, progress)


def _release(path: Path, model: Model) -> Release | Baseline:
    """Another release; answers that were saved stand for the release that gave them."""
    if path.suffix == ".json" and path.is_file():
        return read_baseline(path, model.manifest)
    return find_release(path, model.manifest)

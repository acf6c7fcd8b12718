"""The `.json` beside every engine: all that decides whether the engine is good on this machine.

An engine is bound to the TensorRT that built it, to the GPU's architecture and to the graph it was
made of, and the native library may crash on one that does not belong here. So nothing is handed to
it before this file was read and compared: `misfit` says in words what differs.
"""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.lone_file import sidecar_path
from resdeploy.deploy.cuda import device
from resdeploy.deploy.engine.flavor import Flavor, Typing
from resdeploy.deploy.engine.layer_table import LayerCounts
from resdeploy.deploy.engine.request import BuildOptions, options_from_json
from resdeploy.deploy.errors import EngineError
from resdeploy.deploy.files import read_sealed, replaced_file, sealed
from resdeploy.deploy.installation import upgrade_advice
from resdeploy.deploy.machine import jetson_line, power_mode
from resdeploy.deploy.specs import Precision, Variant
from resdeploy.deploy.system.locks import hold

FORMAT_VERSION = 1
_AMPERE = (8, 0)


@dataclass(frozen=True)
class Machine:
    """What an engine must fit: this library on this GPU. `version` is TensorRT's own text."""

    flavor: Flavor
    version: str
    platform: str
    compute_capability: str | None
    gpu: str | None
    jetson: str | None
    power_mode: str | None

    @classmethod
    def here(cls, flavor: Flavor, version: str) -> "Machine":
        """This machine, with the given library."""
        gpu = device()
        return cls(
            flavor=flavor,
            version=version,
            platform=f"{platform.system()}-{platform.machine()}".lower(),
            compute_capability=gpu.compute_capability if gpu else None,
            gpu=gpu.name if gpu else None,
            jetson=(jetson_line() or "").partition(", power mode")[0] or None,
            power_mode=power_mode(),
        )


@dataclass(frozen=True)
class Sidecar:
    """What an engine is: where it was built, of which graph, how, and what came out.

    `options` are as asked, without the timing cache, which does not change what an engine is;
    `compute_capabilities` are the architectures it was built for; `manifest` is what makes an
    engine predict without its bundle (`bundle.lone_file`), None in older sidecars.
    """

    machine: Machine
    precision: Precision
    variant: Variant
    typing: Typing
    compute_capabilities: tuple[str, ...]
    options: BuildOptions
    graph_sha256: str
    plan_sha256: str
    plan_bytes: int
    build_seconds: float
    workspace_mib: int
    free_memory_mib: int
    peak_memory_mib: int
    warnings: tuple[str, ...]
    layers: LayerCounts | None
    convolutions: LayerCounts | None
    manifest: Mapping[str, Any] | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain values: numbers, texts, lists and objects."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields

    @classmethod
    def from_json(cls, fields: Any, *, source: Path) -> "Sidecar":
        """Read what `to_json` writes; raises EngineError when it is damaged or newer."""
        try:
            if int(fields["format_version"]) > FORMAT_VERSION:
                raise EngineError(
                    f"{source}: format version {fields['format_version']}, this resdeploy reads "
                    f"up to {FORMAT_VERSION}: {upgrade_advice()}"
                )
            return cls(
                **{
                    **fields,
                    "machine": Machine(**fields["machine"]),
                    "options": options_from_json(fields["options"]),
                    "compute_capabilities": tuple(fields["compute_capabilities"]),
                    "warnings": tuple(fields["warnings"]),
                    "layers": _counts(fields["layers"]),
                    "convolutions": _counts(fields["convolutions"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(
                f"{source}: not an engine's sidecar ({error!r}): build the engine again"
            ) from error


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of an engine that lies in its place."""
    text = json.dumps(sealed(sidecar.to_json()), indent=2, ensure_ascii=False) + "\n"
    with replaced_file(sidecar_path(engine)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_sidecar(engine: Path) -> Sidecar:
    """What an engine is, by its sidecar; the engine itself is not touched.

    Raises:
        EngineError: there is none, or it is damaged.
    """
    path = sidecar_path(engine)
    try:
        fields = read_sealed(path)
    except FileNotFoundError as error:
        raise EngineError(
            f"{engine}: no {path.name} beside it, so what it was built for is unknown: build it "
            "with resdeploy build"
        ) from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: cannot be read ({error}): build the engine again") from error
    return Sidecar.from_json(fields, source=path)


def read_plan(engine: Path) -> bytes:
    """The engine's bytes, after its size and SHA-256 were found to be those in the sidecar.

    Raises:
        EngineError: altered, truncated or exchanged since it was built.
    """
    with locked(engine.parent, shared=True):
        sidecar = read_sidecar(engine)
        try:
            plan = engine.read_bytes()
        except OSError as error:
            raise EngineError(
                f"{engine}: cannot be read: {error.strerror}: build it again"
            ) from error
    # of the very bytes that are handed on, not of a file that may be another by then
    if len(plan) != sidecar.plan_bytes:
        found = f"{len(plan)} bytes, expected {sidecar.plan_bytes}"
    elif (digest := hashlib.sha256(plan).hexdigest()) != sidecar.plan_sha256:
        found = f"sha256 {digest[:12]}…, expected {sidecar.plan_sha256[:12]}…"
    else:
        return plan
    raise EngineError(f"{engine}: altered since it was built: {found}: build it again")


def misfit(sidecar: Sidecar, here: Machine) -> str | None:
    """None when the engine is good on `here`, else what differs.

    E.g. "built for sm_86 with TensorRT 10.3.0; here sm_87 with TensorRT 10.7.0".
    """
    built = sidecar.machine
    was: list[str] = []
    now: list[str] = []
    if not _architecture_fits(sidecar, here):
        was.append(f"for {' or '.join(map(_sm, sidecar.compute_capabilities))}")
        now.append(_sm(here.compute_capability) if here.compute_capability else "no GPU")
    if built.flavor != here.flavor or not _version_fits(sidecar, here):
        was.append(f"with {_library(built)}")
        now.append(f"with {_library(here)}")
    if built.platform != here.platform:
        was.append(f"on {built.platform}")
        now.append(f"on {here.platform}")
    return f"built {' '.join(was)}; here {' '.join(now)}" if was else None


def needed_by(sidecar: Sidecar) -> str:
    """What the engine runs on, e.g. "a GPU of sm_87 with TensorRT 10.3.0 on linux-aarch64"."""
    gpus = " or ".join(map(_sm, sidecar.compute_capabilities))
    return f"a GPU of {gpus} with {_library(sidecar.machine)} on {sidecar.machine.platform}"


def remarks(sidecar: Sidecar, here: Machine) -> list[str]:
    """Differences that do not forbid the engine but may make it slower than one built here."""
    built = sidecar.machine
    pairs = (
        ("GPU", built.gpu, here.gpu),
        ("Jetson", built.jetson, here.jetson),
        ("power mode", built.power_mode, here.power_mode),
    )
    return [
        f"built on {name} {was}, here {now}"
        for name, was, now in pairs
        if was and now and was != now
    ]


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the engines folder: two builds may end at once, and a reader must not see half a pair.

    A folder that cannot be written needs no lock: nobody replaces engines there.
    """
    try:
        file = (folder / ".lock").open("r" if shared else "w")
    except OSError:
        yield
        return
    with file:
        hold(file.fileno(), shared=shared)
        yield


def _architecture_fits(sidecar: Sidecar, here: Machine) -> bool:
    if here.compute_capability in sidecar.compute_capabilities:
        return True
    if not sidecar.options.hardware_compatible or here.compute_capability is None:
        return False
    major, _, minor = here.compute_capability.partition(".")
    return (int(major), int(minor)) >= _AMPERE


def _version_fits(sidecar: Sidecar, here: Machine) -> bool:
    built = sidecar.machine.version
    if built == here.version:
        return True
    if not sidecar.options.version_compatible:
        return False
    # 8 -> 10 and 10 -> 11 run, 8 -> 11 does not, and nothing runs on an older version
    old, new = _numbers(built), _numbers(here.version)
    return old <= new and (old[0], new[0]) in {(8, 8), (8, 10), (10, 10), (10, 11), (11, 11)}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _library(machine: Machine) -> str:
    name = "TensorRT" if machine.flavor == "tensorrt" else "TensorRT-RTX"
    return f"{name} {machine.version}"


def _sm(compute_capability: str) -> str:
    return f"sm_{compute_capability.replace('.', '')}"


def _counts(fields: dict[str, int] | None) -> LayerCounts | None:
    return None if fields is None else LayerCounts(**fields)

"""Real checkpoints and 24 images without labels: what is decided, corrected and contradicted."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from resdeploy.deploy.bundle.manifest import Manifest, ModelFacts, input_spec, output_spec
from resdeploy.deploy.images.preprocess import Preprocess, named
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from resdeploy.export.proof.settle import Settled, describe_on_images, keys_given, settle


def _images(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "cifar10" / "val").glob("*/*.jpg"))[::42][:24]


def _settle(
    shared_data: Path,
    preprocess: Preprocess,
    assume: Mapping[str, str],
    given: frozenset[str] = frozenset(),
) -> Settled:
    checkpoint = read_checkpoint(shared_data / "checkpoints" / "cifar10_resnet20.th")
    architecture = identify(checkpoint, assume=assume)
    return settle(checkpoint, architecture, preprocess, _images(shared_data), given=given)


def _manifest(preprocess: Preprocess, assumptions: tuple[str, ...]) -> Manifest:
    return Manifest(
        model=ModelFacts("cifar_resnet20", 1, 10, "ab" * 32, {"pool": "yes"}),
        input=input_spec(32, 32),
        output=output_spec(10),
        preprocess=preprocess,
        labels=tuple(f"class_{k}" for k in range(10)),
        variants={},
        assumptions=assumptions,
    )


@pytest.mark.realdata
def test_the_right_contract_is_confirmed(shared_data: Path) -> None:
    found = _settle(shared_data, named("cifar", 32), {})
    assert found.testimony is not None and not found.testimony.changed
    decided = found.testimony.decided
    assert decided["normalization"] == "imagenet"
    assert (decided["pool"], decided["stem_stride"], decided["range"]) == ("no", "1", "1")
    assert 0 < found.testimony.score.value < 0.05
    assert found.testimony.score.low < found.testimony.score.value < found.testimony.score.high
    assert not any("--assume pool=" in said for said in found.architecture.assumptions)
    report = found.testimony.to_json()
    assert (report["images"], report["far"]) == (24, False)
    assert report["runner_up"]["verdict"] != "nearer"
    assert report["runner_up"]["margin"] == min(
        other["margin"] for other in report["alternatives"] if other["verdict"] != "same"
    )


@pytest.mark.realdata
def test_a_wrong_assumption_is_corrected_with_a_wrong_preprocessing(shared_data: Path) -> None:
    found = _settle(shared_data, named("half", 32), {"pool": "yes"})
    assert found.testimony is not None
    assert found.testimony.changed == {"pool": "no", "normalization": "imagenet"}
    assert found.architecture.settings["pool"] == "no"
    assert found.preprocess.mean == named("cifar", 32).mean
    exported = found.applied_to(_manifest(named("half", 32), ()), found.architecture)
    assert exported.model.settings["pool"] == "no"


@pytest.mark.realdata
def test_what_the_user_gave_stays_and_is_contradicted(shared_data: Path) -> None:
    given = frozenset({"pool"})
    found = _settle(shared_data, named("cifar", 32), {"pool": "yes"}, given)
    assert found.testimony is not None
    assert found.architecture.settings["pool"] == "yes"
    assert found.testimony.changed == {} == found.testimony.decided
    assert [rival.alternative.key for rival in found.testimony.against] == ["pool"]
    assert any("pool=no, not for yes as you gave" in said for said in found.testimony.sentences())


@pytest.mark.realdata
def test_a_network_of_another_input_is_far(shared_data: Path) -> None:
    given = keys_given({}, preprocess=True, normalization=False, resize=False, size=False)
    wrong = named("half", 32)
    found = _settle(shared_data, wrong, {"pool": "yes"}, given | {"pool"})
    assert found.testimony is not None and found.testimony.far
    assert found.testimony.sentences()[0].startswith("WARNING")


@pytest.mark.realdata
def test_batch_norms_without_statistics_leave_everything_unproven(shared_data: Path) -> None:
    checkpoint = read_checkpoint(shared_data / "checkpoints" / "imagenet_mobilenet_v2.pth")
    architecture = identify(checkpoint)
    found = settle(checkpoint, architecture, named("imagenet"), _images(shared_data))
    assert found.testimony is None and not found.proof
    assert found.architecture is architecture
    assert "no statistics of a training" in found.unproven[0]


@pytest.mark.realdata
def test_without_images_the_export_says_how_to_prove_it(shared_data: Path) -> None:
    checkpoint = read_checkpoint(shared_data / "checkpoints" / "cifar10_resnet20.th")
    architecture = identify(checkpoint)
    preprocess = named("cifar", 32)
    found = settle(checkpoint, architecture, preprocess, [])
    manifest = _manifest(preprocess, (*architecture.assumptions, "class names are not known"))
    got = found.applied_to(manifest, architecture)
    assert got.assumptions[0].startswith("preprocessing and strides are unproven without images")
    assert got.assumptions[1:] == manifest.assumptions
    assert got.model.settings == architecture.settings
    assert "batchnorm_statistics" not in got.proofs


@pytest.mark.realdata
def test_inspect_tells_what_fits(shared_data: Path) -> None:
    path = shared_data / "checkpoints" / "cifar10_resnet20.th"
    found = describe_on_images(path, _images(shared_data))
    assert found["architecture"] == "cifar_resnet20"
    assert found["proofs"]["batchnorm_statistics"]["decided"]["pool"] == "no"

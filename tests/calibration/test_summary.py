"""What a run leaves in the manifest can be read back and adds up."""

import shutil
from pathlib import Path

from resdeploy.calibration import quantize
from resdeploy.deploy.bundle.bundle import read_bundle


def test_the_manifest_tells_images_repairs_and_figures(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(flower_bundle, tmp_path / "flowers.bundle"))
    quantize(bundle, image_folder, method="minmax", force=True)
    kept = read_bundle(bundle).manifest.calibration
    assert kept is not None
    assert kept["images"] + kept["held_back"] == len(list(image_folder.iterdir()))
    assert kept["method"] == "minmax" and kept["recipes"]["int8"]["method"] == "minmax"
    assert kept["confidence"]["images"] >= max(2, kept["held_back"])
    assert set(kept["accuracy"]) <= set(kept["ms_per_image"])
    for step in kept["repairs"]:
        gained = step["after"]["sqnr_db"] - step["before"]["sqnr_db"]
        assert abs(step["gained_db"] - gained) < 0.02

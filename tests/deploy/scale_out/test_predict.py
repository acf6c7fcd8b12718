"""Predictions over shares are those of one process, in the order of the images."""

from pathlib import Path

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.inference.prediction import Prediction
from resdeploy.deploy.scale_out.predict import predict_spread, shares
from tests.in_turn import InTurn


@pytest.mark.parametrize(
    ("count", "batch", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 8, [2]), (0, 8, [])]
)
def test_shares_hold_every_position_once(count: int, batch: int, sizes: list[int]) -> None:
    found = shares(count, batch)
    assert [len(share) for share in found] == sizes
    assert [position for share in found for position in share] == list(range(count))


def test_answers_come_in_order_and_a_bad_image_is_named_as_the_user_named_it(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    good = sorted(image_folder.iterdir())[:6]
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    files = [*good[:4], bad, *good[4:]]
    places = [f"s3://bucket/{file.name}" for file in files]
    seen: list[tuple[str, int, int]] = []
    found = list(
        predict_spread(
            InTurn(flower_bundle, files), places, precision="fp32", backend="ort-cpu",
            top=2, batch=3, progress=lambda *step: seen.append(step),
        )
    )  # fmt: skip
    with load(flower_bundle, precision="fp32", backend="ort-cpu") as classifier:
        expected = list(classifier.predict_many(good, top=2))
    (error,) = (answer for answer in found if isinstance(answer, InputError))
    assert found.index(error) == 4
    assert str(error) == "s3://bucket/bad.jpg: not an image in any format Pillow reads"
    answers: list[list[Prediction]] = [one for one in found if isinstance(one, list)]
    for got, wanted in zip(answers, expected, strict=True):
        assert [one.label for one in got] == [one.label for one in wanted]
        assert [p.probability for p in got] == pytest.approx([p.probability for p in wanted])
    assert seen == [("predicting", done, 7) for done in (3, 6, 7)]

"""The committed data is what the script writes, as far as a sample can tell."""

import gzip
import json

import pytest

from resdeploy.export.architectures.constructed.signatures import DATA, made_with

pytest.importorskip("timm")

from resdeploy.export.architectures.modules.compute_signatures import all_names, entries, to_bytes


@pytest.mark.slow
def test_entries_are_those_of_the_committed_file() -> None:
    names = ("mobilenet_v3_small", "timm:tinynet_e", "timm:mobilenetv3_small_100")
    made = json.loads(gzip.decompress(to_bytes(entries(names))))
    if made["made_with"] != made_with():
        pytest.skip(f"the data was made with {made_with()}")
    committed = json.loads(gzip.decompress(DATA.read_bytes()))["networks"]
    assert made["networks"] == {name: committed[name] for name in names}


def test_a_network_has_one_name_and_ours_are_left_out() -> None:
    names = ("mobilenet_v3_small", "mobilenet_v3_small", "resnet18", "timm:vgg11")
    assert list(entries(names)) == ["mobilenet_v3_small"]
    assert to_bytes(entries(names)) == to_bytes(entries(names))


def test_torchvisions_names_come_first_and_tensorflows_last() -> None:
    names = list(all_names())
    timms = [name.removeprefix("timm:") for name in names if name.startswith("timm:")]
    assert not names[0].startswith("timm:") and names.index("timm:regnety_004") > 40
    assert timms.index("efficientnet_b0") < timms.index("tf_efficientnet_b0")

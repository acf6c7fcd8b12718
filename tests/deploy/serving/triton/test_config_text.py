"""The text format, as protobuf's own parser reads it."""

import pytest
from google.protobuf import struct_pb2, text_format

from resdeploy.deploy.serving.triton.config_text import Constant, config_text


def test_protobuf_reads_back_every_kind_of_value() -> None:
    awkward = 'a "quoted" \\ back\nslash, tulipán, 图'
    text = config_text(
        {
            "fields": [
                {"key": "text", "value": {"string_value": awkward}},
                {"key": "number", "value": {"number_value": 0.1}},
                {"key": "yes", "value": {"bool_value": True}},
                {"key": "none", "value": {"null_value": Constant("NULL_VALUE")}},
            ]
        }
    )
    found = text_format.Parse(text, struct_pb2.Struct())
    assert found["text"] == awkward
    assert found["number"] == 0.1
    assert found["yes"] is True and found["none"] is None
    assert text.isascii()


def test_a_value_of_another_kind_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        config_text({"name": None})

"""The messages are the public protocol's, number by number."""

from resdeploy.deploy.serving.rpc.messages import METHODS, file_descriptor, message_class


def test_a_request_has_the_bytes_that_the_protocol_says() -> None:
    # written by hand after the wire format: field number << 3 | type, length, content
    wire = bytes(
        [
            *(0x0A, 1), *b"m",  # model_name = 1
            *(0x12, 1), *b"2",  # model_version = 2
            *(0x1A, 2), *b"id",  # id = 3
            *(0x22, 12, 0x0A, 6), *b"binary", *(0x12, 2, 0x08, 1),  # parameters = 4, bool_param
            *(0x2A, 15, 0x0A, 1), *b"x", *(0x12, 4), *b"FP32",  # inputs = 5: name, datatype
            *(0x1A, 2, 1, 3, 0x2A, 0),  # its shape = 3 (packed), contents = 5
            *(0x32, 3, 0x0A, 1), *b"y",  # outputs = 6
            *(0x3A, 2, 7, 8),  # raw_input_contents = 7
        ]
    )  # fmt: skip
    message = message_class("ModelInferRequest").FromString(wire)
    assert (message.model_name, message.model_version, message.id) == ("m", "2", "id")
    assert message.parameters["binary"].bool_param is True
    (tensor,) = message.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [1, 3])
    assert tensor.HasField("contents")
    assert message.outputs[0].name == "y"
    assert list(message.raw_input_contents) == [b"\x07\x08"]
    assert message.SerializeToString() == wire


def test_a_response_has_the_bytes_that_the_protocol_says() -> None:
    message = message_class("ModelInferResponse")(
        model_name="m",
        outputs=[{"name": "y", "datatype": "FP32", "shape": [2]}],
        raw_output_contents=[b"\x01"],
    )
    assert message.SerializeToString() == bytes(
        [
            *(0x0A, 1), *b"m",  # model_name = 1
            *(0x2A, 12, 0x0A, 1), *b"y", *(0x12, 4), *b"FP32", *(0x1A, 1, 2),  # outputs = 5
            *(0x32, 1, 1),  # raw_output_contents = 6
        ]
    )  # fmt: skip


def test_the_text_form_of_every_field_is_known() -> None:
    names = {message.name for message in file_descriptor().message_type}
    assert {name for pair in METHODS.values() for name in pair} <= names
    contents = message_class("InferTensorContents").DESCRIPTOR.fields_by_number
    assert {number: field.name for number, field in contents.items()} == {
        1: "bool_contents",
        2: "int_contents",
        3: "int64_contents",
        4: "uint_contents",
        5: "uint64_contents",
        6: "fp32_contents",
        7: "fp64_contents",
        8: "bytes_contents",
    }
    choice = message_class("InferParameter").DESCRIPTOR.oneofs_by_name["parameter_choice"]
    assert [field.name for field in choice.fields][:3] == [
        "bool_param",
        "int64_param",
        "string_param",
    ]

"""Every reason has a status in HTTP and in gRPC that exists and says whose fault it is."""

from http import HTTPStatus
from typing import get_args

import grpc
import pytest

from resdeploy.deploy.serving.refusal import CODES, Reason, Refusal

_CLIENTS_FAULT = {"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"}


def test_the_table_has_every_reason_once() -> None:
    assert set(CODES) == set(get_args(Reason))


@pytest.mark.parametrize("reason", CODES)
def test_codes_exist_and_agree(reason: Reason) -> None:
    http, name = CODES[reason]
    assert http in {499, *(status.value for status in HTTPStatus)}
    assert hasattr(grpc.StatusCode, name)
    if name in _CLIENTS_FAULT:
        assert 400 <= http < 500
    if name in ("INTERNAL", "UNAVAILABLE"):
        assert http >= 500  # a proxy may try again


def test_a_refusal_says_when_to_try_again() -> None:
    refusal = Refusal("overloaded", "256 images wait already", retry_after_s=3)
    assert (refusal.reason, refusal.retry_after_s) == ("overloaded", 3)
    assert str(refusal) == "256 images wait already"
    assert Refusal("timeout", "late").retry_after_s is None


def test_what_the_client_sent_is_no_command_to_a_terminal() -> None:
    refusal = Refusal("malformed", "tensor '\x1b[2J\n\u202e' is not known")
    assert str(refusal) == "tensor '\\x1b[2J\\n\\u202e' is not known"

"""The error tree in the docstring is the one in the code, with its exit codes."""

import re

from resdeploy.deploy import errors


def test_the_docstring_draws_the_tree() -> None:
    drawn = set(re.findall(r"^(?:[├└]── )?(\w+Error)", errors.__doc__ or "", re.MULTILINE))
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert drawn == defined
    for name in defined - {"ResdeployError"}:
        assert issubclass(getattr(errors, name), errors.ResdeployError)


def test_exit_codes() -> None:
    assert errors.ResdeployError("x").exit_code == 1
    assert errors.BackendError("x").exit_code == 4
    assert errors.MissingDependencyError("x", exit_code=4).exit_code == 4
    assert errors.MissingDependencyError("x").exit_code == 1

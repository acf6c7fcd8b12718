"""--sign of the commands that make or change a bundle, --verify-key of those that use one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Exit

from resdeploy.deploy.cli.shell.command import Command

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SIGN, _VERIFY, _BUNDLE = (f"resdeploy.signed.{name}" for name in ("sign", "verify", "bundle"))


def _kept(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    """Into the context, where `SignedCommand` takes it, not into the command's arguments."""
    ctx.meta[_SIGN if parameter.name == "sign" else _VERIFY] = value


_KEY = click.Path(path_type=Path)
sign_option = click.option(
    "--sign",
    type=_KEY,
    metavar="KEY",
    expose_value=False,
    callback=_kept,
    help="Sign the manifest with this Ed25519 key (PEM).",
)
verify_key_option = click.option(
    "--verify-key",
    type=_KEY,
    metavar="KEY",
    expose_value=False,
    callback=_kept,
    help="Refuse BUNDLE unless it was signed with the key of this public one (PEM).",
)


def will_be_signed(bundle: Path) -> None:
    """Say which bundle the running command made."""
    click.get_current_context().meta[_BUNDLE] = bundle


class SignedCommand(Command):
    """A command that checks the signature of its BUNDLE first, or signs what it made at its end."""

    def invoke(self, ctx: click.Context) -> Any:
        """Check, run, sign; whatever the exit code, a bundle that was made is signed."""
        if ctx.meta.get(_VERIFY) is not None:
            from resdeploy.deploy.bundle.signature import signed_with

            with signed_with(ctx.params["bundle"], ctx.meta[_VERIFY]):
                return super().invoke(ctx)
        if ctx.meta.get(_SIGN) is None:
            return super().invoke(ctx)
        from resdeploy.deploy.bundle.signature import read_private_key

        key = read_private_key(ctx.meta[_SIGN])  # before minutes of work
        try:
            result = super().invoke(ctx)
        except Exit:
            _sign(ctx, key)
            raise
        _sign(ctx, key)
        return result


def _sign(ctx: click.Context, key: "Ed25519PrivateKey") -> None:
    from resdeploy.deploy.bundle.signature import sign

    if _BUNDLE in ctx.meta:
        sign(ctx.meta[_BUNDLE], key)

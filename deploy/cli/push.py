"""`resdeploy push`: validate, write the model card, upload, print."""

from pathlib import Path

import click

from resdeploy.deploy.cli.options import json_option
from resdeploy.deploy.cli.output import print_json, print_table
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.cli.shell.next_steps import finish


@click.command(
    cls=Command,
    epilog="resdeploy push flowers.bundle me/flowers\n"
    "resdeploy push flowers.bundle me/flowers --private --license apache-2.0",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make a repository that only its owner sees.")
@click.option("--revision", metavar="BRANCH", help="Push there.  [default: main]")
@click.option(
    "--license",
    "license_id",
    default="",
    metavar="ID",
    help="Of the weights, for the card, e.g. apache-2.0.",
)
@json_option
def push(
    bundle: Path,
    repository: str,
    private: bool,
    revision: str | None,
    license_id: str,
    as_json: bool,
) -> None:
    """Put BUNDLE and a model card into a repository of the Hugging Face Hub.

    The card holds what verify found last, so verify with --data first. All is one commit; engines
    stay here. Then hf://OWNER/NAME is a bundle's path for every command. HF_TOKEN, or hf auth
    login, says who you are.
    """
    from resdeploy.deploy.bundle.bundle import read_bundle
    from resdeploy.deploy.bundle.hub import push as push_bundle
    from resdeploy.deploy.verification.reports.model_card import model_card, read_verified

    found = read_bundle(bundle)
    card = model_card(found.manifest, read_verified(bundle), repository, license_id=license_id)
    pushed = push_bundle(found, repository, card, private=private, revision=revision)
    at = f"hf://{repository}" + (f"@{revision}" if revision else "")
    if as_json:
        print_json({"repository": repository, "url": pushed.url, "commit": pushed.commit})
        return
    print_table((at, ""), [("page", pushed.url), ("commit", pushed.commit)])
    finish("pushed", f"resdeploy predict {at} IMAGE_OR_DIR", f"resdeploy verify {at} --data DIR")

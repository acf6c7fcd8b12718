"""`python -m resdeploy`: the command line."""

from resdeploy.deploy.cli.main import main

main()

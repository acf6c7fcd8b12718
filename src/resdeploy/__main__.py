"""`resdeploy`, and `python -m resdeploy`: the command line."""

import signal


def run() -> None:
    """Run the command; Ctrl-C before it begins, or after its end, ends Python without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from resdeploy.deploy.cli.main import main  # takes a tenth of a second

    main()


if __name__ == "__main__":
    run()

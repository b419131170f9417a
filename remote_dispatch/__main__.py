"""`python -m remote_dispatch`."""

from remote_dispatch.cli import main

main()

"""User-facing checks of this machine and of hosts: what was seen, and the exact command or edit that cures it."""

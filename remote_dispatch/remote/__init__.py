"""Connections: `connection` is the contract, `local` this machine, `ssh.connect` another one.

Importing the room imports no asyncssh; import `remote_dispatch.remote.ssh` inside functions.
"""

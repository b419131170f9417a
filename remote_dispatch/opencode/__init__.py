"""The OpenCode binary over any connection, and its server over HTTP."""

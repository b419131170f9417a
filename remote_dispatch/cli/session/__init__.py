"""`remote-dispatch session`: named sessions on OpenCode servers."""

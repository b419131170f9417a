"""OpenCode servers: on hosts, started and stopped through SSH, or by URL; each is reached once and shared."""

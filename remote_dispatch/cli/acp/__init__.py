"""`remote-dispatch acp`: editors and scripts talk to the OpenCode of a host by the Agent Client Protocol."""

"""Named sessions: living sessions on OpenCode servers, prompted, watched and answered from here."""

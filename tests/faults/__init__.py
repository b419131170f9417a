"""The fault suite: whole dispatches, each with one fault, judged by an oracle that shares no code with the product."""

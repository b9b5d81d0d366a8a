"""Runs over HTTP: OpenAI's wire format, a page that shows variants side by side, and what a monitor reads."""

"""A study as one file to send to a colleague: HTML, Markdown or JSON."""

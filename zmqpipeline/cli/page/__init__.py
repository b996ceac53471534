"""The page that shows a run in a browser: its server, who is let in, what it is sent, and its files."""

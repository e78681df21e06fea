"""The viewer node: what the perception node publishes, on a web page."""

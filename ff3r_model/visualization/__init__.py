"""Pictures and the web viewer; knows arrays only."""

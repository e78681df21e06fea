"""Speed measurements. Each module runs on its own and takes `--json FILE`."""

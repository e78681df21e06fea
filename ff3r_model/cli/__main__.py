"""`python -m ff3r_model.cli` is `ff3r`."""

from ff3r_model.cli import main

raise SystemExit(main())

"""`python -m ff3r_ros.demo` runs the demo."""

from ff3r_ros.demo.run import main

raise SystemExit(main())

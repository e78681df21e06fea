"""`python -m ff3r_model.training.shards FOLDER`: render procedural rooms for training, shard by shard."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ff3r_model.training.data import FIRST_TRAINING_SEED, write_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=320)
    parser.add_argument("--rooms", type=int, default=16, help="rooms per shard")
    parser.add_argument("--views", type=int, default=12, help="views per room")
    parser.add_argument("--first-seed", type=int, default=FIRST_TRAINING_SEED)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_shards(options.folder, options.first_seed, options.shards, options.rooms, options.views)


if __name__ == "__main__":
    main()

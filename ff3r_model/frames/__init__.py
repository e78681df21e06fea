"""From videos, image folders, RGB-D sequences, bags and live cameras to keyframes and windows."""

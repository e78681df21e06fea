"""Benchmarks of a checkpoint against ground truth: depth, poses, words, novel views."""

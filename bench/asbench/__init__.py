"""What bench/run.py and the other benchmarks are made of."""

"""The benchmarks themselves: what they run and how they measure it."""

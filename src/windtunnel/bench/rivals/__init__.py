"""What the benchmarks compare with: other people's models, and plain code of the kind that everyone writes."""

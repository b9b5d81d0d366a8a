"""Text to batches: corpora, tokenizers, token shards, and the sampler."""

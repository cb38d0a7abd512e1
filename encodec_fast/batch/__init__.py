"""Dataset tokenisation: recordings to codes, on one machine or a cluster (docs/tokenize.md)."""

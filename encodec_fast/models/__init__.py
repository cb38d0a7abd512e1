"""Model definitions in PyTorch (extra `encodec-fast[torch]`)."""

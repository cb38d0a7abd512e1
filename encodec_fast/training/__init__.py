"""Training of codec models (extra `encodec-fast[torch]`)."""

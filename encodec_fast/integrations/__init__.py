"""Other packages' EnCodec models on the native core: one file per package (needs torch)."""

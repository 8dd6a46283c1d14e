"""The replicated session cluster behind greenroom."""

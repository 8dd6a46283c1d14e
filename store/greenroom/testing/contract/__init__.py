"""The checks of the contract, and their means. Import what you need of them from `greenroom.testing`."""

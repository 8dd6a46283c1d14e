"""Searches have no deadline in any test: what else the machine does is no fault of the code."""

from hypothesis import settings

settings.register_profile("greenroom", deadline=None)
settings.load_profile("greenroom")

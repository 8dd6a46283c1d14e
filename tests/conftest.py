"""What holds for every test.

Searches have no deadline: what else the machine does is no fault of the code. Every run of trio has strict
exception groups, which trio 0.25 makes the only ones: a nursery that wraps a single error shows here already.
"""

from functools import partial

import trio
from hypothesis import settings

settings.register_profile("greenroom", deadline=None)
settings.load_profile("greenroom")

trio.run = partial(trio.run, strict_exception_groups=True)

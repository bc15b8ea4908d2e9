"""Fixtures that more than one test file shares."""

import os

from hypothesis import settings

# How long an example takes depends on the machine; what it shows does not. At the gate the same examples
# are tried every time, so that a change is judged by what it changed; `HYPOTHESIS_PROFILE=explore` looks
# for new ones.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

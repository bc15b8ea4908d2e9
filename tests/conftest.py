"""Fixtures that more than one test file shares."""

from hypothesis import settings

# How long an example takes depends on the machine; what it shows does not.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

"""The same pipeline and the same graphs behind other serving frameworks, a file each.

They run in an environment of their own (requirements.txt), are told what to serve by the environment
variables that `common` names, and answer a clip with the JSON of an Answer.
"""

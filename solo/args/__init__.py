"""Settings: what may be written in a YAML or on the command line, and what a run makes of it. Imports no torch.

Read in this order: `fields` (how a key is declared and checked), `schema` and its neighbours (every key; each method's
own in `solo.methods.catalogue`), `solo.compat.keys` (older names), `check_method` and `check_run` (what goes together);
`parse` runs them one after the other, `compose` feeds it from the command line.
"""

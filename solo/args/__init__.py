"""Settings: what may be written in a YAML or on the command line, and what a run makes of it. Imports no torch.

Read in this order: `schema` (every key), `methods` (each method's own), `legacy` (older names), `check`, `rules`,
`resolve`; `parse` runs them one after the other, `compose` feeds it from the command line.
"""

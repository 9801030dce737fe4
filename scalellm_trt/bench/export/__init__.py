"""A run in the shapes that other tools write, so that what reads theirs reads ours.

`rows` gives each target under each load with its samples; one file per format turns them into files. Figures are ours,
by our formulas: where a tool means something else by a name, its file says so.
"""

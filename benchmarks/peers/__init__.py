"""The same flat job through other tools, each in a virtual environment of its own, for `benchmarks.faults --peers`.

`installing` makes the environments, `datatrove_job` and `distilabel_job` are programs that run inside them and import
nothing of wrongturn, `running` starts them and reads what they say, `comparing` holds the trials and their tables.
"""

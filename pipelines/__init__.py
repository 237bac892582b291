"""All of Beam and all input and output: one module a stage, the graph, the engines, the journal, the shards."""

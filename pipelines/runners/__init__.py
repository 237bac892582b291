"""Where the graph runs: in this process, on Flink, on Prism or on Dataflow."""

"""Where the figures come from: each module is run as `python -m benchmarks.NAME [--quick]`.

The last line that one prints is a JSON object with its figures.
"""

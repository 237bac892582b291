"""Critics: prompts, parsing, panels, verification. Pure: knows neither Beam nor HTTP nor the search."""

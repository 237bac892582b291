"""Search over text steps, estimates, first errors, pairing, answers. Pure: knows neither Beam nor HTTP nor critics."""

"""Wire formats: plain functions and values, no input or output, time passed in. Tested by known answers."""

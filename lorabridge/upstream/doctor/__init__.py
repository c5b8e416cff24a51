"""`lorabridge doctor`: the whole way to the endpoint, step by step, and what is wrong where it ends."""

"""Input sets, what the models take, and the exact tensors that devices get."""

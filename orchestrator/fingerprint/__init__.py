"""What arithmetic a runtime does on a device, from its answers to small models made for asking."""

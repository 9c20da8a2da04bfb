"""Stand-ins for accelerators nobody here has: real plug-ins, loaded the way the real ones are."""

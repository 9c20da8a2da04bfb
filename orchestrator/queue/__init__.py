"""States and decisions of the queue: pure, no I/O, no SQL, no clock of its own."""

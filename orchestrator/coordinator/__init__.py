"""Whatever holds leases: the loop of a run, and every question that visits devices."""

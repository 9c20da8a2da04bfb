"""Whether an INT8 file was quantised from an FP32 file, told from the weights alone."""

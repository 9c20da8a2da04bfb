"""The virtual farm: emulated boards with real ARM and x86 kernels behind a real sshd."""

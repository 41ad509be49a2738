"""The store drivers that come with the kernel: `directory`, the default, and `memory`."""

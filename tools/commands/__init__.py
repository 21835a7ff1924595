"""The commands of `thumbnet`, one file each."""

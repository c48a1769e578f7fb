"""The files of this machine: which of them count, one version of each read whole, and what may become of them afterwards."""

"""The read-only mount: a process of its own that shows the catalog as folders and reads files back."""

"""Token files and document files of other programs, read and written."""

"""The database under journal and catalog: tables, connections, one writer thread, migrations."""

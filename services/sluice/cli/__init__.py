"""The command line `sluice`: one room for each larger command, which imports what it needs when it runs."""

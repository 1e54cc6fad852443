"""The rules: pure functions and classes that know no socket, no task and no clock. Time is an argument."""

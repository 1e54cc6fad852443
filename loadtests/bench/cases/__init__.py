"""What `make bench` measures, case by case."""

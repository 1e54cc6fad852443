"""What load consists of: requests made from the example models' own data, and what has to be answered to each."""

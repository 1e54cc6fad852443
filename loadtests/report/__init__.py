"""What load tests say about a run: budgets and whether they are kept, pages, and a history of figures."""

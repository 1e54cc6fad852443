"""`sluice demo`, what `make demo` runs: many clients, compared with Keras."""

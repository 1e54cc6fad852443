"""An open loop: requests sent when they are due, whether or not earlier ones are answered, and what a gateway bears."""

"""What the two models that can say "none of these" share: pictures that are nothing, networks, training, export."""

"""Programs that send load to Sluice and measure what it does under it; they meet it on the wire, as any client does."""

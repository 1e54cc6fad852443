"""The gateway process: transports in front, the model server behind, and the asyncio loop around the rules."""

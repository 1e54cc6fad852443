"""What the load generators send: requests, mixes of lengths, schedules."""

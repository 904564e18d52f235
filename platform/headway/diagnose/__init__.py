"""What a training's inside looks like while it goes on, and what its arithmetic comes to."""

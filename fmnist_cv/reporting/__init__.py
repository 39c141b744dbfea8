"""What is made of finished runs, to look at."""

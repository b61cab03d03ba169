"""What models exist, what runs each of them, and where their files are."""

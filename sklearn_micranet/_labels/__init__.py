"""What is read as images and labels."""

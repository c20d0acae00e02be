"""What operators decide of a kernel at work: what their files say, and who of them may do what."""

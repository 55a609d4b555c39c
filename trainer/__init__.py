"""Train a student from stored labels, without the teacher."""

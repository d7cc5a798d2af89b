//! The smtp role: receiving, submission, queue.

"""Parts of the evaluator that computes only what a change touches: content keys, what is kept, which steps matter."""

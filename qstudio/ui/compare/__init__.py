"""The Compare perspective: where runs came from, how they lie to each other, and in what two of them differ."""

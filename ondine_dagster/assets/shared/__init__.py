"""What all stages stand on: the dataset, its partitions and where they are, how a step speaks."""

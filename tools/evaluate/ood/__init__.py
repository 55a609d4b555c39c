"""Does a model tell images of its classes from foreign ones? The --ood-shards of kd-eval."""

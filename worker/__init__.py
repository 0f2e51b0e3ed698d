"""RQ batch worker: takes jobs, batches crops, runs the model, writes results."""

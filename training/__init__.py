"""From folders of pictures to a checkpoint: data tools, training and the `gamma-train` command."""

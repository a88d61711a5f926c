"""The node plugin on kubelets up to 1.30: claims come with a handle, and the node tells the controller what it has."""

"""Classic DRA (Kubernetes 1.28 to 1.30), where the driver's controller allocates: what is asked for, what there is, what is decided."""

"""Classic DRA, Kubernetes 1.28 to 1.30: a controller of the driver allocates, and the scheduler negotiates nodes with it.

- `types`, `rules`  what the API server takes: JSON types, defaults, validation of resource.k8s.io/v1alpha2;
- `claims`          what kube-controller-manager does with claims;
- `queue`           which pods the scheduler looks at, and when again; `plugin` what its DRA plugin thinks of one pod;
- `scheduler`       an attempt at a pod, and its writes;
- `control`         the task that runs them, driven by what is written rather than by looking at everything;
- `calls`           prepare and unprepare as kubelets of that age do them; `annotations` what they make of CDI names;
- `cluster`         SimCluster with the words of this API.
"""

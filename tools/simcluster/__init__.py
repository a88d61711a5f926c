"""An embedded control plane: the API server, the controllers and the kubelet that a DRA driver meets, in one Trio program.

Nouns, from the ground up:

- `releases`   what each Kubernetes minor serves and which feature gates it has on; `kinds` the kinds and what may be asked of them;
- `shapes`     objects are held in the newest shape (v1) and turned into older ones at the door; `gated` drops what a gate forbids;
- `custom_kinds` kinds that CustomResourceDefinitions make, with the schema that `structural` understands;
- `store`      objects, revisions and history; `registry` the verbs with their rules; `slice_rules`, `counter_rules`, `capacity_rules`
               and `claim_rules` the validation;
- `http_api`   the HTTP face of the registry, `typed` the JSON types of what comes in, `faults` what can be made to go wrong;
- `pools`      which devices are on offer (CEL in `expressions`), `holdings` what is taken of them (shares as `capacities` rounds them),
               `allocator` the search; `scheduler`, `controllers` the tasks around it;
- `garbage`, `generated_claims` what goes with its owner and what comes from a template; `pod_claims` what a pod says of its claims;
- `classic`    all that is different in Kubernetes 1.28 to 1.30: rules, controllers, the scheduler's negotiation, the kubelet's calls;
- `kubelet`    registration, prepare, unprepare, pod status; `plugin_calls` gRPC by the C core; `cdi_reader` a runtime's view of CDI files;
- `cluster`    all of it together, for tests and for `python -m tools.simcluster`.

Nothing here imports `dra` or `nursery_apps`: where both sides come from one hand a common mistake stays unseen.
"""

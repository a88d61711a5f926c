module programs
go 1.26.8
require github.com/containerd/containerd v1.7.35

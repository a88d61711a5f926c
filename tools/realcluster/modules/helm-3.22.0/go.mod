module programs
go 1.26.8
require helm.sh/helm/v3 v3.22.0

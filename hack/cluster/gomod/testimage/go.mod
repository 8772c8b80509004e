module edgemodel.dev/hack/cluster/testimage

go 1.26.0

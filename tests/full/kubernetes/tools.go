//go:build tools

// Package kubernetes names the programs of a Kubernetes node that kubelet.sh builds, so that their versions stand in go.mod.
package kubernetes

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)

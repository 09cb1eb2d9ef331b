#!/bin/sh
# Builds e2e/.cache/bin/kube and the links by which it is called: about nine minutes on one core with an empty cache.
set -eu

cd "$(dirname "$0")"
bin=$PWD/../../.cache/bin
mkdir -p "$bin"
for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
	ln -sf kube "$bin/$name"
done
if [ -x "$bin/kube" ] && [ -z "$(find . -newer "$bin/kube")" ]; then
	exit 0
fi
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
stamp=k8s.io/component-base/version
echo "building Kubernetes $version, which takes some minutes"
# Programs that do not know their version are taken for ancient ones.
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w \
	-X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*} -X $stamp.gitTreeState=clean" -o "$bin/kube" .
touch "$bin/kube" # go leaves the file alone when nothing in it would change

#!/bin/sh
# Builds what a cluster consists of into e2e/.cache/bin, where it is not there yet. From an empty cache that is ten minutes on
# two cores, nine of them for Kubernetes.
set -eu

cd "$(dirname "$0")"
bin=$PWD/../../.cache/bin
mkdir -p "$bin"
export CGO_ENABLED=0

# build NAME [LDFLAGS]: unless the binary is newer than its sources.
build() {
	if [ -x "$bin/$1" ] && [ -z "$(find "$1" build.sh -newer "$bin/$1")" ]; then
		return
	fi
	echo "building $1"
	(cd "$1" && go build -trimpath -ldflags "-s -w ${2:-}" -o "$bin/$1" .)
	touch "$bin/$1" # go leaves the file alone when nothing in it would change
}

# Programs that do not know their version are taken for ancient ones.
version=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)$/\1/p' kube/go.mod)
minor=${version#v1.}
stamp=k8s.io/component-base/version
build kube "-X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*} -X $stamp.gitTreeState=clean"
for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
	ln -sf kube "$bin/$name"
done
build coredns
build pause

#!/bin/sh
# authserver in a real Kubernetes of one node, from nothing: builds the product, Kubernetes, a registry and the clients, installs
# etcd, containerd and PostgreSQL, and runs the tests of ./kubernetes. Needs Go, make, git and a Debian with apt, as root.
# Arguments go to "go test": e2e/kubernetes.sh -run 'Kubernetes/^ha$'
set -eu

cd "$(dirname "$0")"
exec </dev/null
PATH=$PATH:/usr/sbin:/sbin

# part NAME COMMAND...: runs the command and says how long it took.
part() {
	name=$1
	shift
	echo "== $name"
	started=$(date +%s)
	"$@"
	echo "== $name: $(($(date +%s) - started)) s"
}

packages() {
	packages=
	for program in etcd:etcd-server containerd:containerd runc:runc iptables:iptables ip:iproute2 openssl:openssl; do
		command -v ${program%:*} >/dev/null || packages="$packages ${program#*:}"
	done
	[ -x /usr/lib/cni/bridge ] || packages="$packages containernetworking-plugins"
	# shellcheck disable=SC2086 # the list is meant to be split
	./apt.sh $packages
}

part "packages" packages
part "authserver" make -C .. build
part "Kubernetes" kubernetes/programs/build.sh
part "registry" registries/build.sh 3.1.2
part "clients" clients/install.sh crane helm
# What the tests read of modules: there is no way to the outside where they run.
part "definitions" go mod download github.com/cert-manager/cert-manager sigs.k8s.io/gateway-api
part "tests" postgres/with.sh go test -exec "$PWD/kubernetes/isolated.sh" -count=1 -v -timeout 25m ./kubernetes "$@"

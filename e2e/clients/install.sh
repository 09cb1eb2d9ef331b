#!/bin/sh
# Installs every real client that the flows use, and what watches authserver, or those named of the ones that are built: install.sh crane helm.
# Quick when all is there already.
# Debian's own packages come through apt, the others are built from pinned
# module versions into e2e/.cache/bin. Whatever cannot be installed is an error.
set -eu

crane_version=v0.22.1
regctl_version=v0.11.7
oras_version=v1.2.3
helm_version=v3.22.0

cd "$(dirname "$0")/.."
bin=$PWD/.cache/bin
mkdir -p "$bin"

# PATH of a plain user may lack the directories where dockerd and iptables live.
PATH=$PATH:/usr/sbin:/sbin

missing() { ! command -v "$1" >/dev/null 2>&1; }

only=" $* "
# wanted NAME: was it named, or none?
wanted() { [ "$only" = "  " ] || case "$only" in *" $1 "*) ;; *) false ;; esac; }

# --- apt -----------------------------------------------------------------
packages=
missing skopeo && packages="$packages skopeo"
missing podman && packages="$packages podman"
missing buildah && packages="$packages buildah"
missing crun && missing runc && packages="$packages crun"
{ missing containerd || missing ctr; } && packages="$packages containerd"
{ missing dockerd || missing docker; } && packages="$packages docker.io"
missing curl && packages="$packages curl"
missing openssl && packages="$packages openssl"
/usr/bin/python3 -c 'import jwt, cryptography' 2>/dev/null || packages="$packages python3-jwt python3-cryptography"
missing nginx && packages="$packages nginx-light"
missing iptables && packages="$packages iptables"
missing haproxy && packages="$packages haproxy"
missing ip && packages="$packages iproute2"
missing busybox && packages="$packages busybox-static"
[ -e /etc/ssl/certs/ca-certificates.crt ] || packages="$packages ca-certificates"
{ missing prometheus || missing promtool; } && packages="$packages prometheus"
missing jq && packages="$packages jq"

# shellcheck disable=SC2086 # the list is meant to be split
[ $# -gt 0 ] || ./apt.sh $packages

# --- Go ------------------------------------------------------------------
export CGO_ENABLED=0

# have NAME VERSION: is that very version in the cache?
have() { [ -x "$bin/$1" ] && [ "$(cat "$bin/$1.version" 2>/dev/null)" = "$2" ]; }

if wanted crane && ! have crane $crane_version; then
	GOBIN=$bin go install github.com/google/go-containerregistry/cmd/crane@$crane_version
	echo $crane_version >"$bin/crane.version"
fi
if wanted regctl && ! have regctl $regctl_version; then
	GOBIN=$bin go install github.com/regclient/regclient/cmd/regctl@$regctl_version
	echo $regctl_version >"$bin/regctl.version"
fi
if wanted helm && ! have helm "$helm_version-1.34"; then
	# Without a cluster it renders for this Kubernetes, as its releases do; else for 1.20.
	k8s=
	for package in chartutil lint/rules; do
		k8s="$k8s -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=34"
	done
	GOBIN=$bin go install -ldflags "-s -w$k8s" helm.sh/helm/v3/cmd/helm@$helm_version
	echo "$helm_version-1.34" >"$bin/helm.version"
fi
if wanted oras && ! have oras $oras_version; then
	# oras.land/oras cannot be had by "go install" from every proxy (it asks for
	# the list of versions); downloading the one version and building it works.
	src=$(cd / && go mod download -json oras.land/oras@$oras_version | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	tmp=$(mktemp -d)
	cp -R "$src/." "$tmp"
	chmod -R u+w "$tmp"
	(cd "$tmp" && go build -o "$bin/oras" ./cmd/oras)
	rm -rf "$tmp"
	echo $oras_version >"$bin/oras.version"
fi

# --- all there? ----------------------------------------------------------
PATH=$bin:$PATH
for client in docker dockerd podman buildah skopeo containerd ctr crane regctl oras helm prometheus promtool jq curl script openssl nginx haproxy; do
	if wanted "$client" && missing "$client"; then
		echo "install.sh: $client is still missing" >&2
		exit 1
	fi
done

#!/bin/sh
# isolated.sh COMMAND...: runs a command where a node of Kubernetes may do what nodes do: with a network, processes, mounts,
# /run and /var of its own, and a folder for temporary files. The kernel takes all of that back when the command ends,
# however it ends; the folder and the control groups are removed here.
set -eu

if [ "${1:-}" != inside ]; then
	TMPDIR=$(mktemp -d /tmp/authserver-kubernetes-XXXXXX)
	chmod 755 "$TMPDIR" # PostgreSQL is run as somebody else
	export TMPDIR
	name=${TMPDIR#/tmp/}
	remove() {
		status=$?
		for _ in 1 2 3 4 5 6 7 8 9 10; do # what was in there has been killed, but may need a moment
			groups=$(find /sys/fs/cgroup -maxdepth 2 -name "$name")
			[ -n "$groups" ] || break
			# shellcheck disable=SC2086 # the list is meant to be split
			find $groups -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.5
		done
		rm -rf "$TMPDIR"
		exit $status
	}
	trap remove EXIT
	trap 'exit 130' INT TERM
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		mkdir "/sys/fs/cgroup/$name"
	else
		for controller in /sys/fs/cgroup/*/; do mkdir -p "$controller$name"; done # two of them may be the same
	fi
	export KUBERNETES="$name"
	unshare --mount --net --pid --fork --kill-child --mount-proc "$0" inside "$@"
	exit
fi
shift
for dir in /run /var; do
	mount -t tmpfs -o mode=755 tmpfs $dir
done
mkdir -p /var/lib /var/log /run/lock
ln -s /run /var/run
cp /etc/hosts /run/hosts # for names of the tests' own
mount --bind /run/hosts /etc/hosts
ip link set lo up
ip link add node type bridge
ip addr add 10.0.0.1/24 dev node
ip link set node up
ip route add 10.96.0.0/16 dev node # Services: kube-proxy turns them into pods, but only what has a way somewhere
"$@" # not exec: this shell is the first process, and collects the orphans

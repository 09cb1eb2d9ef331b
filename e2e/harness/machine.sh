#!/bin/sh
# machine.sh DIR CGROUP: the first process of a machine (see machine.go), in namespaces of its own, becomes systemd. Its disk is
# this machine's, with an empty layer in memory over it, so that nothing is changed here.
set -eu
dir=$1 cgroup=$2 root=$1/root

echo $$ >"$cgroup/cgroup.procs"
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/over" "$dir/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/over,workdir=$dir/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
	: >"$root/dev/$device"
	mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
for i in 0:stdin 1:stdout 2:stderr; do
	ln -s "/proc/self/fd/${i%:*}" "$root/dev/${i#*:}"
done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
rm -rf "$root/var/log/journal"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
# Only what is asked for is started; and nothing that looks after the machine's own kernel or sweeps its disk.
mkdir -p "$root/run/systemd/system"
for unit in systemd-sysctl.service systemd-modules-load.service systemd-remount-fs.service systemd-tmpfiles-setup.service systemd-udevd.service \
	sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-hugepages.mount; do
	ln -s /dev/null "$root/run/systemd/system/$unit"
done
cd "$root"
mkdir -p old
pivot_root . old
exec unshare --cgroup /bin/sh -ec '
	umount -l /old
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount --make-rshared / # or the folders of credentials are not seen where they are wanted
	exec env -i container=e2e PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=sysinit.target --log-target=console --show-status=no' </dev/null

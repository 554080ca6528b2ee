#!/bin/busybox sh
# The guest's first process: mounts, loads modules, runs the command, reports its status and files, ends.
# ttyS0: the command's output. ttyS1: status, then what it left in /out. ttyS2: the kernel's messages and ours.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
b=/bin/busybox
$b --install -s 2>/dev/null
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev 2>/dev/null
$b mkdir -p /dev/pts /dev/shm /sys/fs/bpf /sys/fs/cgroup
$b mount -t devpts pts /dev/pts
$b mount -t tmpfs shm /dev/shm
$b mount -t tmpfs run /run
$b mount -t tmpfs tmp /tmp
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t cgroup2 cgroup /sys/fs/cgroup
$b mount -t tracefs tracing /sys/kernel/tracing 2>/dev/null
[ -e /dev/fd ] || $b ln -s /proc/self/fd /dev/fd
$b mkdir -p /run/netns

while read -r module; do
    $b insmod "/lib/modules/$module.ko" 2>/dev/null || echo "init: module $module does not load" >/dev/ttyS2
done </lib/modules/order
$b rm -f /lib/modules/*.ko
$b ip link set lo up
echo "init: ready at $($b cut -d' ' -f1 /proc/uptime) s" >/dev/ttyS2

$b stty -F /dev/ttyS0 -onlcr 2>/dev/null
if [ -e /etc/guest.shell ]; then
    $b stty -F /dev/ttyS0 onlcr sane
    $b setsid -c /etc/guest.command </dev/ttyS0 >/dev/ttyS0 2>&1
else
    /etc/guest.command </dev/null >/dev/ttyS0 2>&1
fi
status=$?
echo "init: command ended at $($b cut -d' ' -f1 /proc/uptime) s with $status" >/dev/ttyS2
$b stty -F /dev/ttyS1 raw 2>/dev/null
{
    echo "status=$status"
    [ -z "$($b ls -A /out)" ] || $b tar -C /out -czf - .
} >/dev/ttyS1
$b sync
$b poweroff -f

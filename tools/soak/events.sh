#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Events of soak/overlap.py in a guest, each in its own loop:
#
#	events.sh loop EVENT DISK PARTNER SEED
#	events.sh load DISK SEED
#	events.sh tidy DISK...
#
# "loop" repeats the function event_EVENT with random pauses until the file $place/stop
# exists.  DISK is QEMU's id of the disk, PARTNER the event that a second loop runs
# meanwhile.  It prints a line at the begin and at the end of each run, which the host
# reads:
#
#	begin TIME
#	ask WORDS	the event waits until the host has done this
#	end TIME STATUS	0: the event took effect
#
# "load" is for a disk that is removed and added: it runs fio and writers, and checks
# the writers' records when the disk is back.  It prints the output of "writer check"
# (see writer.c).
#
# "tidy" waits until disks are live, restores their settings, and compares their
# samples.  It prints for each its id, its state, and "same" or "different".

place=/run/overlap
driver=/sys/bus/virtio/drivers/virtio_blk
parameters=/sys/module/virtio_blk/parameters
# The numbers of the writers on a disk.  They are unique, because the device number of a
# removed disk may become the other disk's; each writer has its own area in the second
# partition.
declare -A writers=([shared]="0 1 2 3" [spread]="4 5 6 7")

exec 3>&1

# Sets disk, its name; function, its PCI function; device, its virtio device.
find_disk() {
	local path slot

	disk=
	read -r slot < "$place/$id"
	for path in "$slot"/*/virtio*/block/*; do
		[ -e "$path/queue" ] || continue
		disk=${path##*/}
		function=${path%/virtio*}
		device=${path%/block/*}
		device=${device##*/}
		block=$path
		debug=/sys/kernel/debug/virtio_blk/$disk
	done
	[ "$disk" ]
}

# Makes a device file of the disk, or of its partition $1, and sets node to its name.
# In devtmpfs a program that opens the file of a removed disk for writing would create a
# plain file, which blocks the device file of the next disk.
make_node() {
	local number

	read -r number < "$block${1:+/$disk$1}/dev" || return
	node=$place/node-$$-$1
	rm -f "$node"
	mknod "$node" b "${number%:*}" "${number#*:}"
}

# No pause, a short one or a long one.  Events that remove the disk have longer ones,
# because writers must acknowledge some records before.
pause() {
	case $event$((RANDOM % 4)) in
	unbind? | unplug?) sleep "$((RANDOM % 3)).$((RANDOM % 10))" ;;
	*0) ;;
	*1) sleep "0.$((RANDOM % 7))$((RANDOM % 10))" ;;
	*) sleep "0.0$((RANDOM % 10))" ;;
	esac
}

ask() {
	echo "ask $*" >&3
}

# Makes the driver sleep sometimes after it has dropped a lock, if it supports that.
widen_gaps() {
	local fault=$debug/delay

	[ -e "$fault" ] || return
	echo 0 > "$fault/verbose"
	echo 1 > "$fault/interval"
	echo -1 > "$fault/times"
	echo 10 > "$fault/probability"
} 2> /dev/null

# Returns whether the number in file $1 grows beyond $2 within 15 seconds.
grows() {
	local now n

	for ((n = 0; n < 300; n++)); do
		read -r now < "$1" || return
		[ "$now" -le "$2" ] || return 0
		sleep 0.05
	done
	return 1
}

# The events

event_reset() {
	echo 1 > "$block/recovery/reset"
}

event_confuse() {
	local resets queues

	queues=("$debug"/queue*)
	read -r resets < "$block/recovery/resets" || return
	echo $((RANDOM % ${#queues[@]})) > "$debug/confuse_device" || return
	grows "$block/recovery/resets" "$resets"
	return 0
}

event_function_reset() {
	echo 1 > "$function/reset"
}

event_cpus() {
	local cpu=/sys/devices/system/cpu/cpu$((1 + RANDOM % ($(nproc --all) - 1)))/online

	echo 0 > "$cpu" || return
	until echo 1 > "$cpu"; do sleep 0.05; done
}

# A message of the host may get lost while devices suspend, so $place/sleep is its last.
event_suspend() {
	rm -f $place/sleep
	ask suspend
	until [ -e $place/sleep ]; do sleep 0.02; done
	echo freeze > /sys/power/state
}

event_resize() {
	local mib=$((160 + RANDOM % 9 * 8)) was now

	read -r was < "$block/size"
	[ "$was" != $((mib * 2048)) ] || mib=$((mib - 8))
	# Only grow, because a device that returns with a smaller capacity is dead.
	case $partner in
	suspend | function_reset) mib=$((was / 2048 + 8)) ;;
	esac
	ask resize "$mib"
	until read -r now < "$block/size" && [ "$now" = $((mib * 2048)) ]; do
		[ -e "$block" ] || return
		sleep 0.02
	done
}

event_cache_type() {
	local mode

	read -r mode < "$block/cache_type" || return
	[ "$mode" = "write back" ] && mode="write through" || mode="write back"
	echo "$mode" > "$block/cache_type"
}

# Not bfq where lockdep runs: 7.3's bfq and blk-ioc take bfqd->lock, queue_lock and
# ioc->lock in a circle, with any driver, and after its report lockdep sees no more.
event_scheduler() {
	local all=(none mq-deadline kyber bfq)

	[ ! -e /proc/lockdep ] || unset 'all[3]'
	echo "${all[RANDOM % ${#all[@]}]}" > "$block/queue/scheduler"
}

event_nr_requests() {
	echo $((4 + RANDOM % 17)) > "$block/queue/nr_requests"
}

event_unbind() {
	local n

	echo "$device" > $driver/unbind || return
	# Probe fails if an allocation fails, which may be the other event.  If that is an
	# unplug, the device is gone, or another one is there and bound.
	for ((n = 0; n < 50; n++)); do
		echo "$device" > $driver/bind && return
		[ -e "$function/$device" ] || return 0
		[ ! -e "$driver/$device" ] || return 0
		sleep 0.1
	done
	return 1
}

event_unplug() {
	local was

	was=$(stat -c %i "$function") || return
	ask unplug
	until find_disk && [ "$(stat -c %i "$function")" != "$was" ]; do
		sleep 0.1
	done
}

# Reads all files of a disk, and writes the module's parameters.
event_files() {
	local name value

	for name in num_request_queues poll_queues read_queues io_timeout; do
		read -r value < $parameters/$name && echo "$value" > $parameters/$name
	done
	echo $((3 + RANDOM % 3)) > $parameters/reset_attempts
	echo $((RANDOM % 2 * 120)) > $parameters/reset_after
	cat "$block"/{*,queue/*,recovery/*,mq/*/*} "$debug"/{*,*/*} \
		/sys/kernel/debug/block/"$disk"/{*,hctx*/*,hctx*/cpu*/*} > /dev/null
	return 0
}

# Loses kicks, or interrupts, until a request has timed out.
event_timeout() {
	local timeouts faults=(drop_kick drop_interrupt) status
	local fault="$debug/${faults[RANDOM % 2]}"

	read -r timeouts < "$block/recovery/timeouts" || return
	echo 1000 > "$block/queue/io_timeout"
	echo 0 > "$fault/verbose"
	echo 1 > "$fault/interval"
	echo -1 > "$fault/times"
	echo 100 > "$fault/probability"
	grows "$block/recovery/timeouts" "$timeouts"
	status=$?
	echo 0 > "$fault/probability"
	return $status
}

refused() {
	awk '$1 == "ring_full" { sum += $2 } END { print sum + 0 }' "$debug"/queue*
}

# Reads with more segments than fit into the ring.
event_ring_full() {
	local before full=1 memory=/dev/shm/$id-$$

	before=$(refused)
	[ -e "$memory" ] || perl $place/scatter "$memory" 300
	make_node "" || return
	fio --name=full --filename="$node" --rw=randread --bs=32k --iodepth=32 \
		--ioengine=libaio --direct=1 --thread --size=64m --number_ios=80 \
		--iomem="mmapshared:$memory" &
	while [ "$(jobs -r)" ]; do
		[ "$(refused)" -le "$before" ] || full=0
		sleep 0.05
	done
	wait
	return $full
}

# Makes additions to the ring fail, and one of some allocations below the driver.
event_allocations() {
	local fault="$debug/fail_add" left=1000000 slab=1 n attr=/sys/kernel/debug/failslab

	echo 0 > "$fault/verbose"
	echo 1 > "$fault/interval"
	echo 1000000 > "$fault/times" || return
	echo 50 > "$fault/probability"
	# Not here: a device is dead if an allocation fails when it returns, and one that was
	# plugged in stays unbound if its probe fails.
	if [ "$partner" != function_reset ] && [ "$partner" != suspend ] &&
	   [ "$partner" != unplug ]; then
		echo 1 > $attr/times
		echo $((1 + RANDOM % 60)) > $attr/interval
		echo 100 > $attr/probability
	fi
	# If the other event removes the disk, an allocation of the next probe may fail.
	for ((n = RANDOM % 10; n < 20 && left == 1000000 && slab; n++)); do
		sleep 0.05
		[ ! -e "$fault/times" ] || read -r left < "$fault/times" || left=1000000
		[ "$(< $attr/probability)" = 0 ] || read -r slab < $attr/times
	done
	echo 0 > $attr/probability
	echo 0 > "$fault/probability"
	[ "$left" -lt 1000000 ] || [ "$slab" = 0 ]
}

# Prints the number of writes to the disks' partitions for swap.
swapped_out() {
	cat /sys/class/block/vd?3/stat | awk '{ sum += $5 } END { print sum }'
}

# Fills the memory, so that the kernel writes to the disk to reclaim some.
event_memory() {
	local before free

	free=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
	if [ ! -e /proc/swaps ]; then
		perl -e '$x = "x" x ($ARGV[0] << 20); sleep 1' $((free - 16)) &
		make_node 3 && dd if=/dev/zero of="$node" bs=1M count=48
		wait
		return 0
	fi
	before=$(swapped_out)
	(
	 echo 1000 > /proc/self/oom_score_adj
	 exec perl -e '$x = "x" x ($ARGV[0] << 20)' $((free + 4))
	)
	[ "$(swapped_out)" -gt "$before" ]
}

# The loops

run_loop() {
	event=$1 id=$2 partner=$3 RANDOM=$4

	trap 'rm -f /dev/shm/$id-$$' EXIT
	until [ -e $place/stop ]; do
		pause
		find_disk || continue
		widen_gaps
		echo "begin $EPOCHREALTIME" >&3
		"event_$event" > /dev/null 2>&1
		echo "end $EPOCHREALTIME $?" >&3
	done
}

area() {
	echo $(($1 << 20))
}

# Starts writers and fio, which run until they have an error or are killed.
begin_writing() {
	local number whole marks

	make_node "" && whole=$node && make_node 1 && marks=$node && make_node 2 ||
		return
	for number in ${writers[$id]}; do
		$place/writer write "$node" "$(area "$number")" "$marks" "$1" "$number" \
			> "$place/$id.$number" 2> /dev/null &
	done
	fio --name=load --filename="$whole" --rw=randrw --bs=4k --iodepth=8 \
		--ioengine=libaio --direct=1 --thread --numjobs=2 --nice=19 \
		--offset=1m --size=60m --time_based --runtime=60 > /dev/null 2>&1 &
}

# Returns whether all writers have acknowledged a record.
have_written() {
	local number

	for number in ${writers[$id]}; do
		[ -s "$place/$id.$number" ] || return
	done
}

# Checks the acknowledged records.  The caller repeats it if it fails.  A disk that is
# removed meanwhile reads as zeroes, so the result is valid only if a later read works.
look() {
	local number acked was now

	find_disk && read -r was < "$block/diskseq" && make_node 2 || return
	for number in ${writers[$id]}; do
		acked=$(sed -n "s/^$number //p" "$place/$id.$number" | tail -n 1)
		$place/writer check "$node" "$(area "$number")" "$1" "$number" \
			"${acked:-0}" || return
	done
	dd if="$node" iflag=direct bs=4k count=1 of=/dev/null 2> /dev/null || return
	read -r now < "$block/diskseq" && [ "$now" = "$was" ]
}

# Runs until told to stop and records were checked at least once, unless no writer
# acknowledges any for a minute after that: events may have removed each disk too early.
run_load() {
	id=$1
	local seed=$2 was now right last=0 checked=

	until [ -e $place/stop ] && { [ "$checked" ] || ((last >= 600)); }; do
		rm -f "$place/$id".[0-7]
		until find_disk && read -r was < "$block/diskseq" && begin_writing "$seed"; do
			sleep 0.05
		done
		right=
		until [ -z "$(jobs -r)" ]; do
			# Now it is certain that they write to this disk.
			if have_written && read -r now < "$block/diskseq" &&
				[ "$now" = "$was" ]; then
				right=yes
			fi
			if [ -e $place/stop ] && { [ "$right" ] || ((last++ >= 600)); }; then
				jobs -p | xargs kill -KILL 2> /dev/null
			fi
			sleep 0.1
		done
		wait
		if [ "$right" ]; then
			until look "$seed" > "$place/$id.found" 2>&1; do sleep 0.05; done
			cat "$place/$id.found" >&3
			checked=yes
		fi
		seed=$((seed + 1))
	done
}

run_tidy() {
	local state same n queue

	echo 0 > $parameters/reset_after
	echo 3 > $parameters/reset_attempts
	for id; do
		state=gone same=different
		for ((n = 0; n < 300; n++)); do
			find_disk && read -r state < "$block/state"
			[ "$state" != live ] || break
			sleep 0.1
		done
		if [ "$state" = live ]; then
			queue=$block/queue
			echo none > "$queue/scheduler"
			echo 30000 > "$queue/io_timeout"
			echo 21 > "$queue/nr_requests"
			make_node "" && dd if="$node" bs=1M skip=75 count=1 iflag=direct \
				2> /dev/null | cmp -s - $place/sample && same=same
		fi
		echo "$id $state $same"
	done
}

"run_$1" "${@:2}"

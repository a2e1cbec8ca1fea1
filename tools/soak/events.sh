#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What soak/overlap.py has go on in a guest, each in a loop of its own:
#
#	events.sh loop EVENT DISK PARTNER SEED
#	events.sh load DISK SEED
#	events.sh tidy DISK...
#
# "loop" runs the function event_EVENT again and again, with random pauses, until the file
# $place/stop is there.  DISK is the id that QEMU knows the disk by, PARTNER the event
# that a second loop runs meanwhile.  It prints a line at the begin and at the end of
# each run, which the host reads:
#
#	begin TIME
#	ask WORDS	the host has to do something, which the event waits for
#	end TIME STATUS	0: it did what it is there for
#
# "load" is for a disk that comes and goes: fio, and writers whose records it looks for
# whenever the disk is back.  It prints what "writer check" does (see writer.c).
#
# "tidy" waits until disks are live, undoes what events have set, and compares the
# sample of each.  It prints for each its id, its state, and "same" or "different".

place=/run/overlap
driver=/sys/bus/virtio/drivers/virtio_blk
parameters=/sys/module/virtio_blk/parameters
# The numbers of the writers on a disk.  Each has an area of its own in the second
# partition, because a number of a device that has gone may be the other disk's.
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
# A program that opens devtmpfs' file for writing may create a plain file once the disk
# has gone, and that is in the way of the next disk's.
make_node() {
	local number

	read -r number < "$block${1:+/$disk$1}/dev" || return
	node=$place/node-$$-$1
	rm -f "$node"
	mknod "$node" b "${number%:*}" "${number#*:}"
}

# None, a short one or a long one; a longer one where the disk goes, because writers
# have to get something done before.
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

# Has the driver sleep now and then where it has dropped a lock, if it can.
widen_gaps() {
	local fault=$debug/delay

	[ -e "$fault" ] || return
	echo 0 > "$fault/verbose"
	echo 1 > "$fault/interval"
	echo -1 > "$fault/times"
	echo 10 > "$fault/probability"
} 2> /dev/null

# Whether a number in a file grows beyond $2 within 15 seconds.
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

# What the host says while devices go to sleep may get lost, so it says this last.
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
	# A device that returns with less than it had is dead, as it must be.
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

event_scheduler() {
	local all=(none mq-deadline kyber bfq)

	echo "${all[RANDOM % 4]}" > "$block/queue/scheduler"
}

event_nr_requests() {
	echo $((4 + RANDOM % 17)) > "$block/queue/nr_requests"
}

event_unbind() {
	local n

	echo "$device" > $driver/unbind || return
	# It fails for want of memory, where that is the other event.
	for ((n = 0; n < 50; n++)); do
		echo "$device" > $driver/bind && return
		[ -e "$function/$device" ] || return
		[ ! -e "$driver/$device" ] || return
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

# Reads all that there is to read of a disk, and writes what the module can be told.
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

# Reads with more segments than the ring has room for.
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

# Has additions to the ring fail, and one of some allocations below the driver.
event_allocations() {
	local fault="$debug/fail_add" left=1000000 n attr=/sys/kernel/debug/failslab

	echo 0 > "$fault/verbose"
	echo 1 > "$fault/interval"
	echo 1000000 > "$fault/times" || return
	echo 50 > "$fault/probability"
	# A device whose return is refused memory is dead, as it must be.
	if [ "$partner" != function_reset ] && [ "$partner" != suspend ]; then
		echo 1 > $attr/times
		echo $((1 + RANDOM % 60)) > $attr/interval
		echo 100 > $attr/probability
	fi
	for ((n = RANDOM % 10; n < 20 && left == 1000000; n++)); do
		sleep 0.05
		read -r left < "$fault/times" || break
	done
	echo 0 > $attr/probability
	echo 0 > "$fault/probability"
	[ "$left" -lt 1000000 ]
}

swapped_out() {
	awk '$1 == "pswpout" { print $2 }' /proc/vmstat
}

# Fills the memory, so that the kernel writes to the disk to have some again.
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
	 exec perl -e '$x = "x" x ($ARGV[0] << 20)' $((free + 8))
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

# Has writers and fio work until they have an error, or are killed.
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

# Whether all writers have got as far as to write to something.
have_written() {
	local number

	for number in ${writers[$id]}; do
		[ -s "$place/$id.$number" ] || return
	done
}

# Looks for the records that were acknowledged.  What fails is tried again: a disk that
# goes meanwhile reads as zeroes, so the result counts once it has been read after that.
look() {
	local number said was now

	find_disk && read -r was < "$block/diskseq" && make_node 2 || return
	for number in ${writers[$id]}; do
		said=$(sed -n "s/^$number //p" "$place/$id.$number" | tail -n 1)
		$place/writer check "$node" "$(area "$number")" "$1" "$number" \
			"${said:-0}" || return
	done
	dd if="$node" iflag=direct bs=4k count=1 of=/dev/null 2> /dev/null || return
	read -r now < "$block/diskseq" && [ "$now" = "$was" ]
}

run_load() {
	id=$1
	local seed=$2 was now right last=0

	until [ -e $place/stop ]; do
		rm -f "$place/$id".[0-7]
		until find_disk && read -r was < "$block/diskseq" && begin_writing "$seed"; do
			sleep 0.05
		done
		right=
		until [ -z "$(jobs -r)" ]; do
			# From then on it is certain that they write to this disk.
			if have_written && read -r now < "$block/diskseq" &&
				[ "$now" = "$was" ]; then
				right=yes
			fi
			# The last ones get something done, too.
			if [ -e $place/stop ] && { [ "$right" ] || ((last++ >= 100)); }; then
				jobs -p | xargs kill -KILL 2> /dev/null
			fi
			sleep 0.1
		done
		wait
		if [ "$right" ]; then
			until look "$seed" > "$place/$id.found" 2>&1; do sleep 0.05; done
			cat "$place/$id.found" >&3
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

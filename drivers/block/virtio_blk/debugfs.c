// SPDX-License-Identifier: GPL-2.0
/*
 * The state and counters of each queue: virtio_blk/<disk>/queue<N> in debugfs, a line
 * for each name with its value.  Documentation/abi.rst lists them.
 */

#include <linux/blk-mq.h>
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/jiffies.h>
#include <linux/seq_file.h>

#include "virtio_blk.h"

/* The names of the counters of requests, and of their bytes. */
static const struct {
	enum req_op op;
	const char *requests, *bytes;
} virtblk_op_names[] = {
	{ REQ_OP_READ, "reads", "read_bytes" },
	{ REQ_OP_WRITE, "writes", "write_bytes" },
	{ REQ_OP_FLUSH, "flushes" },
	{ REQ_OP_DISCARD, "discards", "discard_bytes" },
	{ REQ_OP_WRITE_ZEROES, "write_zeroes", "write_zeroes_bytes" },
	{ REQ_OP_SECURE_ERASE, "secure_erases", "secure_erase_bytes" },
	{ REQ_OP_ZONE_APPEND, "zone_appends", "zone_append_bytes" },
	{ REQ_OP_DRV_IN, "queries" },
};

static const enum req_op virtblk_zone_ops[] = {
	REQ_OP_ZONE_OPEN, REQ_OP_ZONE_CLOSE, REQ_OP_ZONE_FINISH,
	REQ_OP_ZONE_RESET, REQ_OP_ZONE_RESET_ALL,
};

static void virtblk_show_sent(struct seq_file *file,
			      const struct virtblk_submit_stats *sent)
{
	u64 zone_ops = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(virtblk_op_names); i++) {
		unsigned int op = (__force unsigned int)virtblk_op_names[i].op;

		seq_printf(file, "%s %llu\n", virtblk_op_names[i].requests,
			   sent->requests[op]);
		if (virtblk_op_names[i].bytes)
			seq_printf(file, "%s %llu\n", virtblk_op_names[i].bytes,
				   sent->bytes[op]);
	}
	for (i = 0; i < ARRAY_SIZE(virtblk_zone_ops); i++)
		zone_ops += sent->requests[(__force unsigned int)
					    virtblk_zone_ops[i]];
	seq_printf(file, "zone_ops %llu\n", zone_ops);
}

/* Polls of the ring that found 0, 1, 2-3, 4-7, 8-15, 16-31, 32 completed requests. */
static void virtblk_show_polls(struct seq_file *file,
			       const struct virtblk_stats *stats)
{
	u64 classes[7] = { };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(stats->polls); i++)
		classes[fls(i)] += stats->polls[i];
	seq_puts(file, "completions");
	for (i = 0; i < ARRAY_SIZE(classes); i++)
		seq_printf(file, " %llu", classes[i]);
	seq_puts(file, "\n");
}

/* Requests that took 16 to 31 ms, 32 to 63 ms, and so on. */
static void virtblk_show_slow(struct seq_file *file, const char *name,
			      const u64 *counts)
{
	unsigned int i;

	seq_puts(file, name);
	for (i = 0; i < VIRTBLK_SLOW_BUCKETS; i++)
		seq_printf(file, " %llu", counts[i]);
	seq_puts(file, "\n");
}

/*
 * @stats is a copy of the counters that the queue's lock protects; the others are read
 * from the queue, in @atomic.
 */
static void virtblk_show_stats(struct seq_file *file,
			       const struct virtblk_submit_stats *sent,
			       const struct virtblk_stats *stats,
			       const struct virtblk_stats *atomic)
{
	virtblk_show_sent(file, sent);
	seq_printf(file, "kicks %llu\n", sent->kicks);
	seq_printf(file, "kicks_suppressed %llu\n", sent->kicks_suppressed);
	virtblk_show_polls(file, stats);
	seq_printf(file, "ring_full %llu\n", stats->ring_full);
	seq_printf(file, "requeues %lld\n", atomic64_read(&atomic->requeues));
	seq_printf(file, "ioerr %lld\n", atomic64_read(&atomic->ioerr));
	seq_printf(file, "unsupp %lld\n", atomic64_read(&atomic->unsupp));
	seq_printf(file, "other_errors %lld\n",
		   atomic64_read(&atomic->other_errors));
	seq_printf(file, "longest_wait_ms %u\n",
		   jiffies_to_msecs(stats->longest_wait));
	virtblk_show_slow(file, "slow_reads", stats->slow[VIRTBLK_READS]);
	virtblk_show_slow(file, "slow_writes", stats->slow[VIRTBLK_WRITES]);
	virtblk_show_slow(file, "slow_others", stats->slow[VIRTBLK_OTHERS]);
	seq_printf(file, "timeouts %lld\n", atomic64_read(&atomic->timeouts));
	seq_printf(file, "lost_interrupts %lld\n",
		   atomic64_read(&atomic->lost_interrupts));
	seq_printf(file, "resent %lld\n", atomic64_read(&atomic->resent));
}

struct virtblk_busy {
	struct blk_mq_hw_ctx *hctx;
	struct virtblk_stall requests;
};

static bool virtblk_count_busy(struct request *req, void *data)
{
	struct virtblk_busy *busy = data;

	return req->mq_hctx != busy->hctx ||
	       virtblk_scan_one(req, &busy->requests);
}

static const char *virtblk_type(struct blk_mq_hw_ctx *hctx)
{
	switch (hctx->type) {
	case HCTX_TYPE_READ:
		return "read";
	case HCTX_TYPE_POLL:
		return "poll";
	default:
		return "default";
	}
}

static int virtblk_queue_show(struct seq_file *file, void *unused)
{
	struct virtblk_queue *q = file->private;
	struct blk_mq_hw_ctx *hctx = q->hctx;
	struct virtblk_busy busy = { .hctx = hctx };
	struct virtio_blk *vblk = q->vblk;
	unsigned int ring, free = 0;
	struct virtblk_stats stats;
	struct virtblk_submit_stats sent;
	cpumask_var_t cpus;
	bool own, prepared, stopped;
	int irq = 0;

	if (!alloc_cpumask_var(&cpus, GFP_KERNEL))
		return -ENOMEM;
	/* hctx->cpumask lacks isolated CPUs, whose requests come here as well. */
	virtblk_queue_cpus(vblk, hctx->queue_num, cpus);
	/* Do not wait for a reset that is stuck; the vector is not known then. */
	if (mutex_trylock(&vblk->recovery.lock)) {
		if (q->vq)
			irq = virtblk_irq(vblk, hctx->queue_num);
		mutex_unlock(&vblk->recovery.lock);
	}
	spin_lock(&q->submit_lock);
	spin_lock_irq(&q->lock);
	sent = q->submit_stats;
	memcpy(&stats, &q->stats, offsetof(struct virtblk_stats, requeues));
	ring = q->ring_size;
	own = q->own_ring;
	prepared = virtblk_is_prepared(q);
	if (own)
		free = ring - (u16)(q->avail_idx - q->used_idx);
	else if (q->vq)
		free = q->vq->num_free;
	stopped = q->stopped;
	spin_unlock_irq(&q->lock);
	spin_unlock(&q->submit_lock);
	blk_mq_tagset_busy_iter(&vblk->tag_set, virtblk_count_busy, &busy);

	seq_printf(file, "cpus %*pbl\n", cpumask_pr_args(cpus));
	free_cpumask_var(cpus);
	seq_printf(file, "type %s\n", virtblk_type(hctx));
	seq_printf(file, "irq %d\n", irq);
	seq_printf(file, "ring %u\n", ring);
	seq_printf(file, "free %u\n", free);
	seq_printf(file, "own_ring %d\n", own);
	if (VIRTBLK_HAVE_PREPARED)
		seq_printf(file, "prepared %d\n", prepared);
	seq_printf(file, "in_flight %u\n", busy.requests.in_flight);
	seq_printf(file, "oldest_ms %u\n", virtblk_age_ms(&busy.requests));
	seq_printf(file, "stopped %d\n", stopped);
	/* Its interrupt may add to it meanwhile. */
	seq_printf(file, "interrupts %llu\n", data_race(q->interrupts));
	virtblk_show_stats(file, &sent, &stats, &q->stats);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(virtblk_queue);

static struct dentry *virtblk_debugfs;

/**
 * virtblk_init_debugfs() - create the directory for all disks
 */
void virtblk_init_debugfs(void)
{
	virtblk_debugfs = debugfs_create_dir(KBUILD_MODNAME, NULL);
}

/**
 * virtblk_exit_debugfs() - remove the directory for all disks
 */
void virtblk_exit_debugfs(void)
{
	debugfs_remove(virtblk_debugfs);
}

/**
 * virtblk_create_debugfs() - create a disk's directory
 * @vblk: the disk
 */
void virtblk_create_debugfs(struct virtio_blk *vblk)
{
	char name[16];
	unsigned int i;

	vblk->debugfs = debugfs_create_dir(vblk->disk->disk_name,
					   virtblk_debugfs);
	for (i = 0; i < vblk->nr_vqs; i++) {
		snprintf(name, sizeof(name), "queue%u", i);
		debugfs_create_file(name, 0400, vblk->debugfs, vblk->queues[i],
				    &virtblk_queue_fops);
	}
	virtblk_create_latency(vblk);
	virtblk_create_faults(vblk);
}

/**
 * virtblk_remove_debugfs() - remove a disk's directory, and stop counting latency
 * @vblk: the disk, whose removal has begun: a reader of its files may wait for the disk
 *
 * Waits for readers.  The files may still be open.
 */
void virtblk_remove_debugfs(struct virtio_blk *vblk)
{
	debugfs_remove(vblk->debugfs);
	virtblk_remove_latency(vblk);
}

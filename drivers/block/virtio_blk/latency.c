// SPDX-License-Identifier: GPL-2.0
/*
 * How long requests take, from sending to completion: virtio_blk/<disk>/latency in
 * debugfs, and the slow_* lines of each queue.  Documentation/abi.rst has the formats.
 *
 * A histogram takes two reads of a clock for each request, so the driver counts it only
 * while a process holds the file open.  Slow requests are counted always, in jiffies,
 * which costs the others nothing.
 */

#include <linux/blk-mq.h>
#include <linux/debugfs.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "virtio_blk.h"

/**
 * struct virtblk_histogram - how long the requests of a queue took
 * @since: when counting began, in ns
 * @longest: the longest time, in ns
 * @counts: requests by their time; see virtblk_latency_bucket()
 *
 * The queue's lock protects it.
 */
struct virtblk_histogram {
	u64 since;
	u64 longest[VIRTBLK_NR_KINDS];
	u64 counts[VIRTBLK_NR_KINDS][VIRTBLK_LATENCY_BUCKETS];
};

/**
 * struct virtblk_latency - the file of a disk
 * @refs: one for the disk, and one for each time that the file is open: it may stay open
 *	longer than there is a disk, and must not keep the disk's name
 * @lock: protects the following; a queue's lock may be taken inside it
 * @vblk: the disk, NULL after its removal
 * @users: how often the file is open
 * @histograms: those of the queues, NULL unless the file is open
 */
struct virtblk_latency {
	refcount_t refs;
	struct mutex lock;		/* see above */
	struct virtio_blk *vblk;
	unsigned int users;
	struct virtblk_histogram *histograms;
};

/* An open file. */
struct virtblk_latency_file {
	struct virtblk_latency *latency;
	struct virtblk_histogram copy;
};

static const char *const virtblk_kind_names[] = {
	[VIRTBLK_READS] = "reads",
	[VIRTBLK_WRITES] = "writes",
	[VIRTBLK_OTHERS] = "others",
};

static enum virtblk_kind virtblk_kind(struct request *req)
{
	switch (req_op(req)) {
	case REQ_OP_READ:
		return VIRTBLK_READS;
	case REQ_OP_WRITE:
		return VIRTBLK_WRITES;
	default:
		return VIRTBLK_OTHERS;
	}
}

static void virtblk_count_latency(struct virtblk_histogram *histogram,
				  struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	enum virtblk_kind kind = virtblk_kind(req);
	u64 ns;

	/* The driver sent the request before counting began: sent_ns is older. */
	if (vbr->sent_ns < histogram->since)
		return;
	ns = ktime_get_ns() - vbr->sent_ns;
	histogram->counts[kind][virtblk_latency_bucket(ns)]++;
	histogram->longest[kind] = max(histogram->longest[kind], ns);
}

/**
 * virtblk_note_wait() - count how long a request took
 * @q: its queue, with its lock held
 * @req: the request, which the device has returned
 *
 * Called only for a request that took at least @q->stats.note_from.
 */
void virtblk_note_wait(struct virtblk_queue *q, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	unsigned long wait = jiffies - vbr->sent;
	struct virtblk_stats *stats = &q->stats;

	stats->longest_wait = max(stats->longest_wait, wait);
	if (wait >= VIRTBLK_SLOW)
		stats->slow[virtblk_kind(req)][virtblk_slow_bucket(wait)]++;
	if (q->histogram)
		virtblk_count_latency(q->histogram, req);
	stats->note_from = q->histogram ? 0 :
		min(stats->longest_wait + 1, VIRTBLK_SLOW);
}

/* Have all queues count in @histograms, or in none.  Needs @latency->lock. */
static void virtblk_set_histograms(struct virtblk_latency *latency,
				   struct virtblk_histogram *histograms)
{
	struct virtio_blk *vblk = latency->vblk;
	struct virtblk_queue *q;
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++) {
		q = vblk->queues[i];
		spin_lock_irq(&q->lock);
		if (histograms)
			histograms[i].since = ktime_get_ns();
		WRITE_ONCE(q->histogram, histograms ? &histograms[i] : NULL);
		q->stats.note_from = 0;
		spin_unlock_irq(&q->lock);
	}
	swap(latency->histograms, histograms);
	kvfree(histograms);
}

static void virtblk_put_latency(struct virtblk_latency *latency)
{
	if (refcount_dec_and_test(&latency->refs))
		kfree(latency);
}

static void virtblk_show_histogram(struct seq_file *file, unsigned int queue,
				   const struct virtblk_histogram *histogram)
{
	unsigned int kind, i;

	for (kind = 0; kind < VIRTBLK_NR_KINDS; kind++) {
		const u64 *counts = histogram->counts[kind];

		if (!memchr_inv(counts, 0, sizeof(histogram->counts[kind])))
			continue;
		seq_printf(file, "queue%u %s max %llu", queue,
			   virtblk_kind_names[kind], histogram->longest[kind]);
		for (i = 0; i < VIRTBLK_LATENCY_BUCKETS; i++)
			if (counts[i])
				seq_printf(file, " %llu:%llu",
					   virtblk_bucket_ns(i), counts[i]);
		seq_puts(file, "\n");
	}
}

static int virtblk_latency_show(struct seq_file *file, void *unused)
{
	struct virtblk_latency_file *open = file->private;
	struct virtio_blk *vblk = open->latency->vblk;
	struct virtblk_queue *q;
	unsigned int i;
	bool counts;

	/* The queues count while the file is open; debugfs refuses reads after removal. */
	for (i = 0; i < vblk->nr_vqs; i++) {
		q = vblk->queues[i];
		spin_lock_irq(&q->lock);
		counts = q->histogram;
		if (counts)
			open->copy = *q->histogram;
		spin_unlock_irq(&q->lock);
		if (counts)
			virtblk_show_histogram(file, i, &open->copy);
	}
	return 0;
}

static int virtblk_latency_open(struct inode *inode, struct file *file)
{
	struct virtblk_latency *latency = inode->i_private;
	struct virtblk_histogram *histograms;
	struct virtblk_latency_file *open;
	size_t size = sizeof(*open);
	int err;

	open = kzalloc(size, GFP_KERNEL);
	histograms = kvcalloc(latency->vblk->nr_vqs, sizeof(*histograms), GFP_KERNEL);
	err = open && histograms ?
		single_open(file, virtblk_latency_show, open) : -ENOMEM;
	if (err) {
		kvfree(histograms);
		kfree(open);
		return err;
	}

	open->latency = latency;
	refcount_inc(&latency->refs);
	mutex_lock(&latency->lock);
	if (!latency->users++)
		virtblk_set_histograms(latency, histograms);
	else
		kvfree(histograms);
	mutex_unlock(&latency->lock);
	return 0;
}

static int virtblk_latency_release(struct inode *inode, struct file *file)
{
	struct virtblk_latency_file *open =
		((struct seq_file *)file->private_data)->private;
	struct virtblk_latency *latency = open->latency;

	mutex_lock(&latency->lock);
	if (!--latency->users && latency->vblk)
		virtblk_set_histograms(latency, NULL);
	mutex_unlock(&latency->lock);
	virtblk_put_latency(latency);
	kfree(open);
	return single_release(inode, file);
}

static const struct file_operations virtblk_latency_fops = {
	.owner		= THIS_MODULE,
	.open		= virtblk_latency_open,
	.read		= seq_read,
	.llseek		= seq_lseek,
	.release	= virtblk_latency_release,
};

/**
 * virtblk_create_latency() - create the file latency of a disk
 * @vblk: the disk, with its directory in debugfs
 *
 * If memory is short the disk has no file.
 */
void virtblk_create_latency(struct virtio_blk *vblk)
{
	struct virtblk_latency *latency;
	size_t size = sizeof(*latency);

	latency = kzalloc(size, GFP_KERNEL);
	if (!latency)
		return;
	refcount_set(&latency->refs, 1);
	mutex_init(&latency->lock);
	latency->vblk = vblk;
	vblk->latency = latency;
	debugfs_create_file("latency", 0400, vblk->debugfs, latency,
			    &virtblk_latency_fops);
}

/**
 * virtblk_remove_latency() - stop counting, because the disk is being removed
 * @vblk: the disk, whose file is removed already
 */
void virtblk_remove_latency(struct virtio_blk *vblk)
{
	struct virtblk_latency *latency = vblk->latency;

	if (!latency)
		return;
	mutex_lock(&latency->lock);
	if (latency->histograms)
		virtblk_set_histograms(latency, NULL);
	latency->vblk = NULL;
	mutex_unlock(&latency->lock);
	virtblk_put_latency(latency);
}

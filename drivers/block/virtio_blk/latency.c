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
#include <linux/mm.h>
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

/* An open file. */
struct virtblk_latency_file {
	struct virtio_blk *vblk;
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

	/* The driver sent it before it counted, and sent_ns is of an earlier request. */
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
	if (q->latency)
		virtblk_count_latency(q->latency, req);
	stats->note_from = q->latency ? 0 :
		min(stats->longest_wait + 1, VIRTBLK_SLOW);
}

/* Have all queues count in @histograms, or in none. */
static void virtblk_set_histograms(struct virtio_blk *vblk,
				   struct virtblk_histogram *histograms)
{
	struct virtblk_queue *q;
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++) {
		q = vblk->queues[i];
		spin_lock_irq(&q->lock);
		if (histograms)
			histograms[i].since = ktime_get_ns();
		WRITE_ONCE(q->latency, histograms ? &histograms[i] : NULL);
		q->stats.note_from = 0;
		spin_unlock_irq(&q->lock);
	}
	vblk->latency = histograms;
}

/**
 * virtblk_stop_latency() - stop counting, because the disk is being removed
 * @vblk: the disk, whose file cannot be opened any more
 */
void virtblk_stop_latency(struct virtio_blk *vblk)
{
	struct virtblk_histogram *histograms;

	mutex_lock(&vblk->latency_lock);
	histograms = vblk->latency;
	if (histograms)
		virtblk_set_histograms(vblk, NULL);
	mutex_unlock(&vblk->latency_lock);
	kvfree(histograms);
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
	struct virtblk_latency_file *latency = file->private;
	struct virtio_blk *vblk = latency->vblk;
	struct virtblk_queue *q;
	unsigned int i;
	bool counts;

	/* The queues count while the file is open; debugfs refuses reads after removal. */
	for (i = 0; i < vblk->nr_vqs; i++) {
		q = vblk->queues[i];
		spin_lock_irq(&q->lock);
		counts = q->latency;
		if (counts)
			latency->copy = *q->latency;
		spin_unlock_irq(&q->lock);
		if (counts)
			virtblk_show_histogram(file, i, &latency->copy);
	}
	return 0;
}

/*
 * Nothing here waits for a request of the disk, which may be stalled: removal waits for
 * this function.
 */
static int virtblk_latency_open(struct inode *inode, struct file *file)
{
	struct virtio_blk *vblk = inode->i_private;
	struct virtblk_histogram *histograms;
	struct virtblk_latency_file *latency;
	size_t size = sizeof(*latency);
	int err;

	latency = kzalloc(size, GFP_NOIO);
	histograms = kvcalloc(vblk->nr_vqs, sizeof(*histograms), GFP_NOIO);
	err = latency && histograms ?
		single_open(file, virtblk_latency_show, latency) : -ENOMEM;
	if (err) {
		kvfree(histograms);
		kfree(latency);
		return err;
	}

	/* The file may be closed after the disk has been removed. */
	get_device(disk_to_dev(vblk->disk));
	latency->vblk = vblk;
	mutex_lock(&vblk->latency_lock);
	if (!vblk->latency_users++) {
		virtblk_set_histograms(vblk, histograms);
		histograms = NULL;
	}
	mutex_unlock(&vblk->latency_lock);
	kvfree(histograms);
	return 0;
}

static int virtblk_latency_release(struct inode *inode, struct file *file)
{
	struct virtblk_latency_file *latency =
		((struct seq_file *)file->private_data)->private;
	struct virtio_blk *vblk = latency->vblk;
	struct virtblk_histogram *histograms = NULL;

	mutex_lock(&vblk->latency_lock);
	if (!--vblk->latency_users && vblk->latency) {
		histograms = vblk->latency;
		virtblk_set_histograms(vblk, NULL);
	}
	mutex_unlock(&vblk->latency_lock);
	kvfree(histograms);
	put_disk(vblk->disk);
	kfree(latency);
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
 * virtblk_create_latency() - create a disk's file
 * @vblk: the disk, with its directory in debugfs
 */
void virtblk_create_latency(struct virtio_blk *vblk)
{
	debugfs_create_file("latency", 0400, vblk->debugfs, vblk,
			    &virtblk_latency_fops);
}

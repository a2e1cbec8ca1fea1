/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The number of the release.
 *
 * tools/packaging/version reads it here, and adds date and commit between releases.  Modules
 * that are built outside a kernel tree have that version.  In a kernel tree each module has
 * a copy of this file.
 */
#ifndef VIRTIO_BLK_MQ_VERSION_H
#define VIRTIO_BLK_MQ_VERSION_H

#define VIRTIO_BLK_MQ_VERSION	"0.9"

#endif /* VIRTIO_BLK_MQ_VERSION_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The constants of VIRTIO 1.4 that all devices share: status, features, rings.
 */
#ifndef VBLKSIM_VIRTIO_H
#define VBLKSIM_VIRTIO_H

enum virtio_status {
	STATUS_ACKNOWLEDGE	= 1,
	STATUS_DRIVER		= 2,
	STATUS_DRIVER_OK	= 4,
	STATUS_FEATURES_OK	= 8,
	STATUS_SUSPEND		= 16,
	STATUS_NEEDS_RESET	= 64,
	STATUS_FAILED		= 128,
};

enum virtio_feature {
	F_INDIRECT_DESC		= 28,
	F_EVENT_IDX		= 29,
	F_VERSION_1		= 32,
	F_ACCESS_PLATFORM	= 33,
	F_RING_PACKED		= 34,
	F_ORDER_PLATFORM	= 36,
	F_SR_IOV		= 37,
	F_NOTIFICATION_DATA	= 38,
	F_NOTIF_CONFIG_DATA	= 39,
	F_RING_RESET		= 40,
	F_ADMIN_VQ		= 41,
	F_SUSPEND		= 43,
};

/* Flags of descriptors; the last two in packed rings only. */
enum desc_flag {
	DESC_F_NEXT		= 1,
	DESC_F_WRITE		= 2,
	DESC_F_INDIRECT		= 4,
	DESC_F_AVAIL		= 1 << 7,
	DESC_F_USED		= 1 << 15,
};

#define AVAIL_F_NO_INTERRUPT	1

/* The packed ring's event suppression. */
enum event_mode {
	EVENT_ENABLE		= 0,
	EVENT_DISABLE		= 1,
	EVENT_DESC		= 2,
};

#define EVENT_WRAP		(1 << 15)

#endif /* VBLKSIM_VIRTIO_H */

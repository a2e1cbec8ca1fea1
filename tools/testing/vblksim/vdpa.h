/* SPDX-License-Identifier: GPL-2.0 */
/* Add VDUSE devices to the vDPA bus, and delete them. */
#ifndef VBLKSIM_VDPA_H
#define VBLKSIM_VDPA_H

/* Both return 0 or the error after the driver's probe or remove has ended, during
 * which the device must answer. */
int vdpa_add(const char *name);
int vdpa_delete(const char *name);

#endif /* VBLKSIM_VDPA_H */

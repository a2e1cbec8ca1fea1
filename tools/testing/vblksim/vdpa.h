/* SPDX-License-Identifier: GPL-2.0 */
/* Putting VDUSE devices on the vDPA bus, and taking them off. */
#ifndef VBLKSIM_VDPA_H
#define VBLKSIM_VDPA_H

/* Both tell the error, or 0, and last as long as the driver's probe or remove
 * does: that needs a device that answers meanwhile. */
int vdpa_add(const char *name);
int vdpa_delete(const char *name);

#endif /* VBLKSIM_VDPA_H */
